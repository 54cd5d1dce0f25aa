"""Tests of `indexer/data`."""
