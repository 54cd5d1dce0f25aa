"""Tests of `indexer`."""
