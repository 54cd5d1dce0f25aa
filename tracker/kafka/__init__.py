"""Brokers, topics and clients, and the records that are sent."""
