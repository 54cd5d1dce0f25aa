"""Tests of `tracker/stream`."""
