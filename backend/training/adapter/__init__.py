"""The adapter: what a project's labels add to the compact grounder."""
