"""A project's training: from accepted masks to a version that may serve."""
