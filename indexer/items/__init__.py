"""A catalogue to item vectors, their index, and the next version."""
