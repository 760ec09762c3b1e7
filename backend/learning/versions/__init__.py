"""Trained versions, which one serves, and the jobs that make them."""
