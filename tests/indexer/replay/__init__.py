"""Tests of `indexer/replay`."""
