"""Topics that every worker reads whole, and tasks in the background."""
