"""The console script `tracker`."""
