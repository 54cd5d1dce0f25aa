"""Benchmarks: each runs what it is compared with and ours in one run, and prints the ratio."""
