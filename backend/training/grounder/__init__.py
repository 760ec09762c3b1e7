"""Training of the compact grounder's detector."""
