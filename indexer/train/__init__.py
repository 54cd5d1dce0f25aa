"""Fit ranker and prediction, choose half-lives, publish it all as one version."""
