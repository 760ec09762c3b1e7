"""What the server answers: pre-labels and refined masks."""
