"""Tests of `tracker/users`."""
