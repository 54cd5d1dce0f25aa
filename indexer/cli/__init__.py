"""The console script `indexer`."""
