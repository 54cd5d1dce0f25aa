"""The demonstration: broker, worker, events, and what they change."""
