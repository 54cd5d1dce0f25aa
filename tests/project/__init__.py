"""Tests of the project itself: its rooms, docs, deployment and packaging."""
