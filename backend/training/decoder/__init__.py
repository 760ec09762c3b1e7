"""Fine-tuning of a SAM's mask decoder."""
