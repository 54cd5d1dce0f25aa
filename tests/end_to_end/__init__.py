"""Tests of the whole: broker, workers, faults."""
