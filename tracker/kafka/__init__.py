"""Brokers, topics, clients, and what is sent."""
