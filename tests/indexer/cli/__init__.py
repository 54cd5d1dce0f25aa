"""Tests of `indexer/cli`."""
