"""Tests of `tracker`."""
