"""Tests of `tracker/artifact`."""
