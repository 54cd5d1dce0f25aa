"""Events: their JSON, their kinds and weights, and chunks of them as columns."""
