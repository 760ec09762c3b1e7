"""Which tasks to label first."""
