"""Promises of the docs, and the tests that fail once their protection is taken out."""
