"""Tests of `tracker/api`."""
