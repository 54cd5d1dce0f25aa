"""Logged events through the recommender that serves, and what is written down of them."""
