"""Tests of `indexer/evaluate`."""
