"""The active-learning loop, tried on labelled images."""
