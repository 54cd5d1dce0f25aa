"""Tests of `tracker/items`."""
