"""What is said before or beside what is asked for: contexts, exclusions, "it", counted rows, doubtful nouns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dataset_tools.expressions.explanation import in_words
from dataset_tools.expressions.meanings import MEANINGS, certainty_of, meanings_of
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Group, Part, State
from dataset_tools.expressions.reading import reading_of
from dataset_tools.expressions.relations import LabelledBox, choose
from dataset_tools.geometry import Box

SIZE = (600, 800)


def at(x: float, y: float, category: str = "tenniscourt", width: float = 40, height: float = 60) -> LabelledBox:
    """A box by its middle."""
    return LabelledBox(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2), category)


# Three rows of 5, 2 and 2, the first with a gap in it; at the right two single ones in rows of their own.
ROWS = {
    **{f"a{i}": at(x, 80) for i, x in enumerate((100, 150, 200, 320, 370))},
    **{f"b{i}": at(x, 200) for i, x in enumerate((180, 300))},
    **{f"c{i}": at(x, 320) for i, x in enumerate((200, 320))},
    "d": at(320, 440),
}
# Three heaps of planes from left to right.
HEAPS = {
    **{f"l{i}": at(80 + 30 * (i % 2), 100 + 60 * i, "airplane", 30, 30) for i in range(4)},
    **{f"m{i}": at(360 + 30 * (i % 2), 160 + 60 * i, "airplane", 30, 30) for i in range(3)},
    **{f"r{i}": at(640 + 30 * (i % 2), 120 + 60 * i, "airplane", 30, 30) for i in range(3)},
}
FEW = {"big": at(200, 200, "ship", 200, 80), "beside": at(420, 200, "ship"), "low": at(200, 500, "ship"),
       "far": at(700, 520, "ship"), "pier": at(680, 420, "harbor", 160, 30)}  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "expression", "expected"),
    [
        (ROWS, "left court in the second row", "b0"),
        (ROWS, "second row from the bottom, the court on the right", "c1"),
        (ROWS, "in the third row from the top the court on the left", "c0"),
        (ROWS, "the rightmost tennis court of the first row", "a4"),
        (HEAPS, "top plane in the third group", "r0"),
        (HEAPS, "the lowest plane of the second group from the left", "m2"),
        (FEW, "not the largest ship but the one right next to it", "beside"),
        (FEW, "there is a large ship at the top left; the ship to the right of it", "beside"),
        (FEW, "Three small ships lie around; the uppermost, please", "beside"),
        (FEW, "the ship on the right near the pier", "far"),
        (FEW, "not the first but the second ship from the left at the bottom", "far"),
        (FEW, "not one of the two at the top, the ship at the left", "low"),
    ],
)
def test_finds_the_one(layout: dict[str, LabelledBox], expression: str, expected: str) -> None:
    names = list(layout)
    choice = choose(parse(expression), list(layout.values()), SIZE)
    said = in_words(replace(parse(expression), text=""))
    assert [names[i] for i in choice.indices[:1]] == [expected], (said, choice.code, choice.scores)
    assert choice.code is None, (said, choice.message, choice.chance)


def test_the_noun_of_what_is_excluded_is_that_of_what_is_asked_for() -> None:
    query = parse("not the ships at the dock, the one out in open water")
    assert (query.category, query.is_all) == ("ship", False)


def test_a_roof_over_it_says_nothing_of_the_place() -> None:
    (part,) = parse("the dock with the big grey roof over it").constraints
    assert isinstance(part, Part)
    assert (part.color, part.noun) == ("gray", "roof")


def test_a_small_white_square_at_its_end_is_not_the_object_s_size_and_shape() -> None:
    (part,) = parse("dock with a small white square at its end").constraints
    assert isinstance(part, Part)
    assert part.color == "white"


def test_the_last_of_a_row_is_counted_from_somewhere() -> None:
    last = parse("the last car in the row")
    assert State("end") in last.constraints  # either end
    assert "last" in parse("the last house on the street").unread
    counted = parse("last of the three planes, counting from the top")
    assert "number 1 from the lower" in in_words(counted)
    assert not counted.unread


def test_two_of_a_group_are_no_group_of_two() -> None:
    query = parse("there are two planes in the group on the left, the lower one of them")
    (group,) = (c for c in query.constraints if isinstance(c, Group))
    assert (group.shape, group.count) == ("any", 2)
    assert any(isinstance(c, Group) and c.shape == "cluster" for c in group.members)


def test_a_railway_line_is_no_row() -> None:
    assert not any(isinstance(c, Group) for c in parse("the car on the railway line").constraints)


def test_words_are_not_joined_over_prepositions() -> None:
    assert parse("the truck with the red cab in the yard").target_categories == frozenset()


@pytest.mark.parametrize(
    ("expression", "category"),
    [("the yellow mixer", "vehicle"), ("boardwalk at the left", "harbor"), ("both turboprops", "airplane")],
)
def test_a_doubtful_noun_is_taken_for_a_category_and_says_so(expression: str, category: str) -> None:
    query = parse(expression)
    assert query.category == category
    assert 0 < certainty_of(query.noun) < 1
    assert reading_of(expression).guessed
    assert parse(expression.replace(query.noun, "blob")).category is None


def test_a_doubtful_noun_makes_the_answer_less_sure() -> None:
    two = [at(100, 100, "harbor"), at(500, 300, "harbor")]
    sure, doubtful = (choose(parse(f"the left {noun}"), two, SIZE) for noun in ("pier", "boardwalk"))
    assert sure.indices == doubtful.indices == (0,)
    assert doubtful.chance == pytest.approx(sure.chance * certainty_of("boardwalk"))


def test_the_table_of_meanings_doubles_no_certain_name() -> None:
    assert [noun for noun in MEANINGS if not meanings_of(noun)] == []


def test_a_court_is_of_either_kind() -> None:
    mixed = [at(100, 100), at(300, 100, "basketballcourt"), at(500, 100, "basketballcourt")]
    assert choose(parse("the leftmost court"), mixed, SIZE).indices == (0,)
    assert choose(parse("the rightmost court"), mixed, SIZE).indices == (2,)
