"""Events into states, states into lists, and what is learned from what was chosen."""
