"""Referring expressions: read, answered on boxes, and made."""
