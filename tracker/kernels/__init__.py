"""Foundations of native code: the decorators, inner products, decay, rows as sealed bytes."""
