"""Tests of `tracker/lookup`."""
