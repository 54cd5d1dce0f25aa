"""Tests of `indexer/encoder`."""
