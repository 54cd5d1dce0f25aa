"""Tests of `indexer/items`."""
