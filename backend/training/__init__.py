"""Recipes of the networks; never started by the server itself."""
