"""Held-out events asked of tracker and baselines, measured and reported."""
