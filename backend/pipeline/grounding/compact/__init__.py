"""The compact grounder: a detector and the relation program."""
