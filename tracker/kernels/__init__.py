"""What native code stands on: the decorators, inner products, decay, rows as sealed bytes."""
