"""Items, events and users read from files; labels; what a training leaves out."""
