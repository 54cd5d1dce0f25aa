"""Tests of `tracker/events`."""
