"""What a project's annotators call things."""

from __future__ import annotations

from backend.learning.annotations.learnt_words import learnt_nouns
from dataset_tools.expressions.parser import parse


def test_a_noun_that_annotators_use_is_learnt() -> None:
    said = [("the leftmost gazoo", "ship"), ("gazoo at the bottom", "ship"), ("the white gazoo", "ship")]
    found = learnt_nouns([*said, ("the blob", "ship"), ("the left ship", "harbor")])
    assert set(found) == {"gazoo"}
    assert (found["gazoo"].category, found["gazoo"].times) == ("ship", 3)
    assert found["gazoo"].certainty < 1


def test_a_noun_used_for_two_things_is_not() -> None:
    assert not learnt_nouns([("the gazoo", "ship")] * 3 + [("the gazoo", "harbor")] * 2)


def test_a_learnt_noun_names_its_category_in_every_place() -> None:
    learnt = {"gazoo": "ship", "plane": "ship", "solar thing": "solar panel"}
    assert parse("the leftmost gazoo", (), learnt).category == "ship"
    assert parse("both gazoos", (), learnt).is_all
    assert parse("the harbor by the gazoo", (), learnt).target_categories == {"ship"}
    assert parse("the plane", (), learnt).category == "airplane", "the lexicon goes first"
    assert parse("the upper solar thing", ("solar panel",), learnt).category == "solar panel"
    assert parse("the leftmost gazoo").category is None


def test_a_playground_is_no_track() -> None:
    assert parse("the playground by the road").category is None
