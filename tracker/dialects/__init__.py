"""Dialects: events in the formats of other systems."""
