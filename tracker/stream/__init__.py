"""One partition in work: chunks in, lists and item events out, commits beside."""
