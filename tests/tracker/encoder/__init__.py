"""Tests of `tracker/encoder`."""
