"""Tests of `tracker/cli`."""
