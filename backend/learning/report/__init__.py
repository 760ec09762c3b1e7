"""A project's figures on one page."""
