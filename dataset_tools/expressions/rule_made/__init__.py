"""Sentences that rules make of a scene, each read back by the parser and the relation program."""
