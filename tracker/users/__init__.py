"""What is kept of a user, and how an event changes it."""
