"""What is wrong with a dataset, before a loader meets it."""
