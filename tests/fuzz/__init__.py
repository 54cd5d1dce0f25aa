"""Fuzzing of everything that is read from outside; see `python -m tests.fuzz --help`."""
