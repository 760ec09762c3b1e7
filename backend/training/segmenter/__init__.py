"""Training of the compact segmenter."""
