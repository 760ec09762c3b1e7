"""What a project's annotators call things."""

from __future__ import annotations

from dataset_tools.expressions.parser import parse
from dataset_tools.label_studio.learnt_nouns import in_known_words, learnt_nouns


def test_a_noun_that_annotators_use_is_learnt() -> None:
    said = [("the leftmost gazoo", "ship"), ("gazoo at the bottom", "ship"), ("the white gazoo", "ship")]
    found = learnt_nouns([*said, ("the blob", "ship"), ("the left ship", "harbor")])
    assert set(found) == {"gazoo"}
    assert (found["gazoo"].category, found["gazoo"].times) == ("ship", 3)
    assert found["gazoo"].certainty < 1


def test_a_noun_used_for_two_things_is_not() -> None:
    assert not learnt_nouns([("the gazoo", "ship")] * 3 + [("the gazoo", "harbor")] * 2)


def test_a_learnt_noun_names_its_category_in_every_place() -> None:
    learnt = {"gazoo": "ship", "plane": "ship", "solar gazoo": "solar panel"}
    assert in_known_words("The leftmost Gazoo", (), learnt) == ("The leftmost ship", ("gazoo: ship",))
    assert in_known_words("both gazoos", (), learnt).text == "both ships"
    assert in_known_words("the harbor by the gazoo", (), learnt).text == "the harbor by the ship"
    assert in_known_words("the plane", (), learnt) == ("the plane", ()), "the lexicon goes first"
    assert in_known_words("the upper solar gazoo", ("solar panel",), learnt).text == "the upper solar panel"
    assert in_known_words("the leftmost blob", (), learnt) == ("the leftmost blob", ())


def test_a_playground_is_no_track() -> None:
    assert parse("the playground by the road").category is None
