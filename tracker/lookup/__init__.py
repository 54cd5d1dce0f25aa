"""What is known of a user or item, for people and programs."""
