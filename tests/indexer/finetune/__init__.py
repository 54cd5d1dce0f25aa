"""Tests of `indexer/finetune`."""
