"""What is known of items: vectors, the index, and live counts of what is chosen."""
