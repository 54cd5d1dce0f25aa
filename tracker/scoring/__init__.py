"""Features of a candidate to a score (ranker) and to a probability (prediction)."""
