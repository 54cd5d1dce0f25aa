"""Tests of `tracker/kernels`."""
