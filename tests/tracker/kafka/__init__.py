"""Tests of `tracker/kafka`."""
