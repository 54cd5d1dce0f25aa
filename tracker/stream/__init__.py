"""The processing of one partition: chunks to states, lists and item events, with its commits."""
