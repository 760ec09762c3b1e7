"""Constructions that people's own sentences showed: groups by any noun, the others, cut parts, unseen places."""

from __future__ import annotations

import numpy as np
import pytest

from dataset_tools.expressions.appearance import view_of
from dataset_tools.expressions.explanation import explain
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Among, Color, Extreme, Group, Part, Place, Relation, Shape, State
from dataset_tools.expressions.relations import LabelledBox, choose
from dataset_tools.geometry import Box

SIZE = (600, 800)


def at(x: float, y: float, category: str, width: float = 40, height: float = 40) -> LabelledBox:
    """A box by its middle."""
    return LabelledBox(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2), category)


# Three courts at the left, three at the lower right; two planes above, three below, a hut.
LAYOUT = {
    **{f"l{i}": at(100 + 60 * i, 120, "tenniscourt", 50, 80) for i in range(3)},
    **{f"r{i}": at(560 + 60 * i, 480, "tenniscourt", 50, 80) for i in range(3)},
    "high": at(400, 90, "airplane"),
    "cut": at(500, 15, "airplane", 40, 30),
    **{f"p{i}": at(300 + 60 * i, 540, "airplane") for i in range(3)},
    "hut": at(300, 300, "building", 60, 60),
    "car": at(345, 300, "vehicle", 20, 12),
    "far_car": at(700, 60, "vehicle", 20, 12),
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("in the strip of three tennis courts at the top the second from the left", "l1"),
        ("the car in the enclosure on the right", "far_car"),
        ("middle airplane of the bottom three", "p1"),
        ("the plane whose upper end is outside the picture", "cut"),
        ("just a bit of a plane", "cut"),
        ("the car alongside the hut", "car"),
        ("the higher one of the cars", "far_car"),
        ("the C-130 at the bottom right", "p2"),
        ("leftmost tennis", "l0"),
    ],
)
def test_what_people_write(expression: str, expected: str) -> None:
    choice = choose(parse(expression), list(LAYOUT.values()), SIZE)
    assert [list(LAYOUT)[i] for i in choice.indices] == [expected], (parse(expression).constraints, choice)
    assert choice.code is None


@pytest.mark.parametrize(
    ("expression", "constraint"),
    [
        ("the boat in the squad of three up right", Group("any", 3, (), (Place((1, -1), False),))),
        ("a court in the slanted row", Group("row", None, (Shape("diagonal"),))),
        ("the airliner whose left half is cut off", State("cut", (-1, None))),
        ("the sliver of a boat", State("cut")),
        ("the car beside the higher house", Place((None, -1), False)),
        ("the fourth jetty from the left, second to last before the gap", Extreme((-1, None), 4)),
        ("the light blue pool", Color("cyan")),
        ("dark car on the upper road", Place((None, -1), False)),
    ],
)
def test_what_is_read(expression: str, constraint: object) -> None:
    query = parse(expression)
    inner = [c for part in query.parts for c in part.constraints]
    assert constraint in (*query.constraints, *inner), query
    assert "sliver" not in query.unread


def test_what_is_said_of_the_others_excludes_them() -> None:
    query = parse("the white jet with the red tail; the other one has a red body")
    others = [c for c in query.constraints if isinstance(c, Among)]
    assert [c.pool.constraints for c in others] == [(Part("red", "body"),)]
    assert others[0].negated
    assert Part("red", "body") not in query.constraints


def test_a_noun_after_alongside_is_what_lies_beside() -> None:
    query = parse("white car alongside the dark shed")
    relation = next(c for c in query.constraints if isinstance(c, Relation))
    assert relation.kind == "near"
    assert relation.targets[0].category == "building"
    assert relation.targets[0].constraints


def test_one_of_a_row_is_picked_without_a_noun() -> None:
    query = parse("in the slanted line of trailers the second from the right")
    assert Extreme((1, None), 2) in query.constraints, query


@pytest.mark.parametrize(
    ("expression", "kind", "noun"),
    [
        ("the ship at the bottom, on the west bank of the river", "direction", "river"),
        ("the white boat out of the water", "on", "land"),
        ("dark car on the upper road", "on", "road"),
    ],
)
def test_what_a_landmark_is_to_the_object(expression: str, kind: str, noun: str) -> None:
    query = parse(expression)
    relation = next(c for c in query.constraints if isinstance(c, Relation))
    assert (relation.kind, relation.targets[0].noun) == (kind, noun)
    assert not any(isinstance(c, Place) and c.direction[0] is not None for c in query.constraints)


def test_a_landmark_may_be_one_of_several() -> None:
    """A lawn on either side: which of them is said."""
    image = np.full((200, 400, 3), 130, np.uint8)
    image[:, 20:120] = image[:, 280:380] = (70, 130, 60)
    boxes = [at(70, 100, "vehicle"), at(330, 100, "vehicle"), at(200, 100, "vehicle")]
    choice = choose(parse("the car on the lawn on the right"), boxes, (200, 400), view_of(image))
    assert choice.code is None
    assert choice.indices == (1,)


def test_a_faint_landmark_counts_where_there_is_no_plain_one() -> None:
    image = np.full((200, 400, 3), 130, np.uint8)
    image[60:140, 300:380] = (130, 110, 150)  # hardly purple
    boxes = [at(60, 100, "vehicle"), at(270, 100, "vehicle"), at(150, 100, "vehicle")]
    choice = choose(parse("the car by the purple roof"), boxes, (200, 400), view_of(image))
    assert choice.indices[0] == 1
    assert "roof" not in choice.unread


def test_an_explanation_counts_courts_as_the_answer_does() -> None:
    boxes = [at(100 * i, 100, kind) for i, kind in enumerate(["basketballcourt", *["tenniscourt"] * 4], 1)]
    query = parse("the second court from the left")
    choice = choose(query, boxes, SIZE)
    lines = explain(query, choice, boxes, SIZE).lines
    best = next(line for line in lines if "candidate" in line)
    assert f"candidate {choice.indices[0]} " in best
