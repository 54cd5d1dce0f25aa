"""Tests of `tracker/feeds`."""
