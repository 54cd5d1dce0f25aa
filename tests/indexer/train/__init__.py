"""Tests of `indexer/train`."""
