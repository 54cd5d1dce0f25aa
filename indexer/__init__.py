"""The indexer: a catalogue in, an artifact of item vectors and their index out."""
