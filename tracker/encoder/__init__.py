"""The trained user encoder with scene attention, as it serves."""
