"""Items: vectors, the index, and live counts of choices."""
