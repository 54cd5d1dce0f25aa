"""Fit the user encoder and scene attention."""
