"""The models that a server holds: the base and the projects' own."""
