"""State of users, and how an event changes it."""
