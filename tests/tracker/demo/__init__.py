"""Tests of `tracker/demo`."""
