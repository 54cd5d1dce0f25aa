"""Tests of `tracker/recommend`."""
