"""Tests of `tracker/scoring`."""
