"""Tests of `indexer/build`."""
