"""A random walk of faults and inputs over real workers, judged by a model of the rules."""
