"""The same said in other words is read alike.

The sentences were written from general knowledge of how people write, before they were tried; those that were read
otherwise showed faults of the grammar, which were mended by kind.
"""

from __future__ import annotations

import pytest

from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import (
    Among,
    Color,
    Constraint,
    Extreme,
    Group,
    Part,
    Place,
    Query,
    Relation,
    Shape,
    State,
)

PARAPHRASES = {
    "the second plane from the left": [
        "2nd plane from left", "plane, second from left", "the plane that's second from the left",
        "counting from the left, the second plane", "from left: second plane", "plane no. 2 from the left",
        "plane #2 from the left", "the second-from-left plane", "starting at the left, it's the second plane",
        "secnd plane from left", "left plane but one", "the leftmost plane but one", "number two from the left, plane",
    ],
    "the leftmost tank": [
        "the farthest tank to the left", "the tank furthest to the left", "far-left tank", "tank at the extreme left",
        "the tank all the way on the left", "the tank closest to the left edge", "teh leftmost tank",
    ],
    "the left of the two courts": [
        "left one of two courts", "two courts next to each other, the left one", "of the two courts, the left one",
        "there are two courts; the left one", "the two courts: the left one", "the one on the left of the two courts",
    ],
    "the left one of the two courts at the top": [
        "left of the two courts at the top", "the left of the top two courts", "the left of the two upper courts",
    ],
    "the upper left of the four courts": ["top-left of the four courts", "the top left one of four courts"],
    "the middle one of the three planes": [
        "of the three planes, the middle one", "middle of the three planes",
        "out of three planes the one in the middle",
        "three planes facing each other, the middle one",
    ],
    "the lower left ship": ["the ship at the lower left", "lower-left-hand ship", "ship, lower left"],
    "the ship to the upper left of the pier": [
        "ship NW of pier", "the ship above left of the pier", "the ship to the left of and above the pier",
        "the ship above and to the left of the pier", "the ship up and to the left of the pier",
    ],
    "the ship above the pier": [
        "the ship just above the pier", "the ship diagonally above the pier", "the ship due north of the pier",
        "the ship further up than the pier",
    ],
    "the longest ship": ["the ship that is longer than all the others", "ship - the longest",
                         "by far the longest ship"],
    "the larger ship": ["the much larger ship", "the considerably larger ship", "the ship larger than the rest"],
    "the white plane with a red tail": [
        "white plane, red tail", "plane w/ red tail, white", "the white plane which has a red tail",
        "the white plane whose tail is red", "the white plane that has a red tail",
    ],
    "the grey plane": ["the plane painted grey", "a plane that is grey in color"],
    "the car between the two trucks": ["the car in between two trucks", "car sandwiched between 2 trucks"],
    "the truck with a red car beside it": [
        "the truck with a red car parked next to it", "the truck where a red car is parked next to it",
        "the truck that has a red car next to it",
    ],
    "the car with a truck to its left": ["the car having a truck on its left", "the car that has a truck to its left"],
    "the truck without cars": ["the truck that doesn't have any cars", "truck w/o cars", "the truck with no cars"],
    "the lone tank": [
        "the tank parked by itself", "the tank that stands apart from the others", "the tank with nothing beside it",
        "the tank away from the rest", "a tank a little apart from the others",
    ],
    "the house with a brown roof": ["house with reddish-brown roof", "brown roof house", "house whose roof is brown"],
    "the L-shaped building": ["building in the shape of an L", "the building shaped like an L"],
    "the third car from the right along the road": ["third car along the road from the right"],
    "the tennis court": ["teh tenis court", "tennis cuort"],
    "the ship farthest from the quay": [
        "the ship farther out from the quay", "the ship furthest away from the quay",
        "the ship most distant from the quay",
    ],
}  # fmt: skip


READINGS = {
    "neither the left nor the right plane": (
        Among(Query("", constraints=(Place((-1, None), False),)), negated=True),
        Among(Query("plane", noun="plane", constraints=(Place((1, None), False),)), negated=True),
    ),
    "the plane at the end of the row": (Group("row"), State("end")),
    "the last car in the row": (Group("row"), State("end")),
    "corner house": (State("corner"),),
    "the court half out of the picture": (State("cut"),),
    "the plane pointing to the upper left": (Shape("diagonal"),),
    "the silo with the dark top": (Part("dark"),),
    "the green court with red edges": (Color("green"), Part("red")),
    "the pool with a big white umbrella, bottom": (Part("white", "umbrella"), Place((None, 1), False)),
    "the dock with ten boats furthest to the left": (
        Relation("near", (Query("boats", "ship", "boats", is_all=True, count=10),)), Extreme((-1, None)),
    ),
    "second house from the bridge": (Relation("nearest", (Query("bridge", "bridge", "bridge"),), rank=2),),
    "the boat at the end of the second pier from the left": (
        Relation("end", (Query("pier", "harbor", "pier", constraints=(Extreme((-1, None), 2),)),)),
    ),
    "the plane that isn't at the top but in the middle": (
        Place((None, -1), False, negated=True), Place((0, 0), False),
    ),
    "the court on the left side in the middle": (Place((-1, 0), False),),
    "of these three planes the left one": (Group("any", 3), Place((-1, None), False)),
    "Three barges lie in the middle; of those, the ship at the right.": (
        Group("any", 3, (), (Place((0, 0), False),)), Place((1, None), False),
    ),
    "white boat between the blue one and the pier": (
        Color("white"),
        Relation("between", (Query("", "ship", constraints=(Color("blue"),)), Query("pier", "harbor", "pier"))),
    ),
    "the helicopter that is fully in the picture": (State("whole"),),
    "the court just beyond the one in the corner": (
        Relation("near", (Query("", "tenniscourt", constraints=(State("corner"),)),)),
    ),
    "white car, the upper of the white ones": (Color("white"), Place((None, -1), False)),
}  # fmt: skip


@pytest.mark.parametrize(("sentence", "wanted"), READINGS.items())
def test_reading(sentence: str, wanted: tuple[Constraint, ...]) -> None:
    query = parse(sentence)
    assert query.constraints == wanted
    assert not query.unread
    assert query.category is not None


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("the dock with the most boats", "most"),
        ("the house opposite", "opposite"),
        ("the plane in the back row", "back"),
        ("the farthest boat", "farthest"),
        ("a two-lane bridge", "lane"),
        ("the boat at the outer end of the pier", "outer"),
        ("last house on the street", "last"),
    ],
)
def test_what_is_not_read_is_said(sentence: str, word: str) -> None:
    assert word in parse(sentence).unread


def test_everything_but_one() -> None:
    query = parse("everything except the largest ship")
    assert query.category == "ship"
    assert query.is_all


def test_the_sentence_that_asks_comes_second() -> None:
    query = parse("there's a big house at the top; the pool behind it")
    assert query.category == "swimmingpool"
    (relation,) = query.relations
    assert relation.targets[0].category == "building"


def test_a_named_number_of_something_is_no_number_of_objects() -> None:
    assert parse("four-engined plane").count is None
    assert parse("four planes").count == 4


@pytest.mark.parametrize(("plain", "other"), [(plain, other) for plain, more in PARAPHRASES.items() for other in more])
def test_paraphrases_are_read_alike(plain: str, other: str) -> None:
    one, two = parse(plain), parse(other)
    assert two.category == one.category
    assert set(two.constraints) == set(one.constraints)
    assert (two.is_all, two.unread) == (one.is_all, one.unread)
