"""Slivers at the border, clusters of tilted objects, shapes of docks: what people pass over, and what they count."""

from __future__ import annotations

import numpy as np
import pytest

from dataset_tools.expressions.appearance import Outline, look_at
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.relations import LabelledBox, choose
from dataset_tools.geometry import Box
from tests.dataset_tools.expressions.test_people import SIZE, at

HEIGHT, WIDTH = SIZE
# A whole ship and what the left border has left of another one; a third one and a pier to the right.
SHIPS = {
    "sliver": LabelledBox(Box(0, 100, 9, 140), "ship", color="white"),
    "left": LabelledBox(Box(60, 300, 120, 340), "ship", color="white"),
    "right": LabelledBox(Box(600, 300, 660, 340), "ship", color="white"),
    "pier": at(180, 320, "harbor", 60, 200),
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("white ship on the left", "left"),
        ("the small white ship", "left"),
        ("the ship on the left of the large pier", "left"),
        ("leftmost ship", "sliver"),
        ("the smallest ship", "sliver"),
        ("white ship at the left edge", "sliver"),
        ("the white ship cut off by the border", "sliver"),
        ("only a bit of this white ship can be seen, on the left", "sliver"),
    ],
)
def test_a_sliver_is_meant_only_where_the_words_may_mean_one(expression: str, expected: str) -> None:
    scene = {name: box for name, box in SHIPS.items() if expression != "the small white ship" or name != "right"}
    choice = choose(parse(expression), list(scene.values()), SIZE)
    assert [list(scene)[i] for i in choice.indices[:1]] == [expected], choice


def test_a_group_counts_its_slivers() -> None:
    row = {"a": LabelledBox(Box(0, 100, 8, 140), "ship"), "b": at(60, 120, "ship"), "c": at(120, 120, "ship")}
    choice = choose(parse("the middle ship of the three"), list(row.values()), SIZE)
    assert [list(row)[i] for i in choice.indices] == ["b"]


def diagonal(names: str, x: float, y: float, step: float = 38) -> dict[str, LabelledBox]:
    """Courts that lie askew one beside the other: their upright boxes overlap."""
    return {name: at(x + step * i, y - 0.6 * step * i, "tenniscourt", 60, 60) for i, name in enumerate(names)}


COURTS = diagonal("abc", 80, 500) | diagonal("def", 260, 392) | diagonal("ghij", 450, 278)
BOATS = {name: at(x, 100, "ship", 20, 60) for name, x in zip("abcdefg", (40, 66, 130, 156, 240, 330, 356), strict=True)}


@pytest.mark.parametrize(
    ("scene", "expression", "expected"),
    [
        (COURTS, "right court of the middle group of three", "f"),
        (COURTS, "in the second cluster of courts counting from the lower left, the one furthest to the right", "f"),
        (BOATS, "the right one of the second pair of boats counted from the west", "d"),
    ],
)
def test_groups_that_stand_close_together(scene: dict[str, LabelledBox], expression: str, expected: str) -> None:
    choice = choose(parse(expression), list(scene.values()), SIZE)
    assert [list(scene)[i] for i in choice.indices[:1]] == [expected], choice


PARTS = {
    "l": [(0, 0, 12, 80), (0, 68, 60, 80)],
    "t": [(24, 0, 36, 80), (0, 0, 60, 12)],
    "u": [(0, 0, 12, 60), (48, 0, 60, 60), (0, 48, 60, 60)],
    "bar": [(0, 0, 14, 80)],
}


def drawn(turned: int = 0) -> tuple[list[str], list[LabelledBox], list[Outline]]:
    image = np.full((*SIZE, 3), 60, np.uint8)
    names, boxes, outlines = [], [], []
    for place, (name, parts) in enumerate(PARTS.items()):
        shape = np.zeros((90, 90), np.bool_)
        for x0, y0, x1, y1 in parts:
            shape[y0:y1, x0:x1] = True
        rows, columns = np.nonzero(np.rot90(shape, turned))
        x, y = 60 + 180 * place, 200
        mask = np.zeros(SIZE, np.bool_)
        mask[rows - rows.min() + y, columns - columns.min() + x] = True
        box = Box(x, y, x + float(np.ptp(columns)) + 1, y + float(np.ptp(rows)) + 1)
        look = look_at(image, box, mask)
        assert look is not None
        assert look.outline is not None
        names.append(name)
        boxes.append(LabelledBox(box, "harbor", look=look))
        outlines.append(look.outline)
    return names, boxes, outlines


@pytest.mark.parametrize("turned", range(4))
def test_letters_are_told_by_which_part_of_their_rectangle_is_empty(turned: int) -> None:
    names, _, outlines = drawn(turned)
    for letter in "ltu":
        liked = {name: outline.likeness(letter) for name, outline in zip(names, outlines, strict=True)}
        assert max(liked, key=lambda name: liked[name]) == letter, liked
        assert liked[letter] > 0.7


@pytest.mark.parametrize("turned", range(4))
@pytest.mark.parametrize(
    ("expression", "expected"),
    [("the L-shaped dock", "l"), ("the T-shaped pier", "t"), ("dock shaped like a U", "u"), ("the pier in an L", "l")],
)
def test_docks_of_a_shape(turned: int, expression: str, expected: str) -> None:
    names, boxes, _ = drawn(turned)
    choice = choose(parse(expression), boxes, SIZE)
    assert names[choice.indices[0]] == expected, choice


@pytest.mark.parametrize(
    "expression",
    [
        "go right to the upper right corner, there is a ship",
        "the car hidden in the shade",
        "the cement truck on the left",
    ],
)
def test_words_that_tell_no_object_from_another(expression: str) -> None:
    assert parse(expression).unread == ()


def test_of_two_that_are_cut_the_one_of_which_less_is_left() -> None:
    planes = {
        "hardly": LabelledBox(Box(0, 100, 58, 160), "airplane"),
        "mostly": LabelledBox(Box(0, 300, 20, 360), "airplane"),
        "other": at(400, 320, "airplane", 60, 60),
    }
    choice = choose(parse("the plane cut off by the left edge"), list(planes.values()), SIZE)
    assert [list(planes)[i] for i in choice.indices[:1]] == ["mostly"], choice


@pytest.mark.parametrize(
    "expression",
    [
        "boat at the end of the pier",
        "boat at end of pier",
        "boat on the pier's end",
        "the white one at the end of the pier",
    ],
)
def test_who_lies_at_an_end(expression: str) -> None:
    pier = at(200, 300, "harbor", 20, 400)
    boats = {"middle": at(222, 310, "ship", 20, 30), "end": at(222, 490, "ship", 20, 30)}
    scene = {"pier": pier, **{k: LabelledBox(b.box, b.category, color="white") for k, b in boats.items()}}
    choice = choose(parse(expression), list(scene.values()), SIZE)
    assert choice.code is None
    assert [list(scene)[i] for i in choice.indices] == ["end"], choice


def test_a_headless_one_is_no_guess_among_many_kinds() -> None:
    kinds = ("ship", "vehicle", "airplane")
    scene = [at(100 * n, 100 + 80 * n, kind) for n, kind in enumerate(kinds, 1)]
    assert choose(parse("the left one"), scene, SIZE).code == "unknown-category"


@pytest.mark.parametrize("expression", ["wing tip at the right border", "the top wing", "tail on the left"])
def test_a_part_may_stand_for_the_plane(expression: str) -> None:
    assert parse(expression).category == "airplane"
    assert parse("the white plane with a red tail").category == "airplane"
