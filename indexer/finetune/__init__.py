"""Fine-tune the text encoder."""
