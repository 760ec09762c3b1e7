"""Who is counted: rows that bend or stand steeply, and what is said of the object alone."""

from __future__ import annotations

from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.relations import Choice, LabelledBox, choose
from dataset_tools.geometry import Box

SIZE = (512, 512)


def _choose(sentence: str, boxes: list[LabelledBox]) -> Choice:
    return choose(parse(sentence), boxes, SIZE)


def _at(*middles: tuple[float, float], side: float = 40, category: str = "airplane") -> list[LabelledBox]:
    half = side / 2
    return [LabelledBox(Box(x - half, y - half, x + half, y + half), category) for x, y in middles]


def test_a_row_may_bend() -> None:
    upper = [(50.0, 120.0), (95.0, 125.0), (140.0, 132.0)]
    lower = [(35.0, 360.0), (82.0, 337.0), (130.0, 340.0), (170.0, 384.0), (205.0, 435.0), (245.0, 485.0)]
    choice = _choose("the leftmost plane in the lower row", _at(*upper, *lower))
    assert choice.indices[0] == 3


def test_steep_rows_are_counted() -> None:
    first = [(480.0 - 22 * n, 100.0 + 38 * n) for n in range(5)]
    second = [(545.0 - 22 * n, 137.0 + 38 * n) for n in range(2, 5)]
    choice = _choose("the bottom tank of the second row", _at(*first, *second, side=36, category="storagetank"))
    assert choice.indices[0] == 7


def test_what_comes_after_a_comma_does_not_change_who_is_counted() -> None:
    planes = _at(*((60.0 + 100 * n, 200.0) for n in range(4)))
    road = _at((260.0, 260.0), category="bridge")
    assert _choose("the third plane from the left, next to the bridge", planes + road).indices == (2,)
    assert parse("the third plane from the left, next to the bridge").asides


def test_two_at_the_bottom_are_nearly_alike() -> None:
    boxes = [LabelledBox(Box(24, 440, 107, 500), "building"), LabelledBox(Box(200, 443, 260, 503), "building")]
    boxes.append(LabelledBox(Box(50, 20, 120, 90), "building"))
    assert _choose("house at the bottom", boxes).margin < 0.3 < _choose("the bottommost house", boxes).margin


def test_the_end_of_a_row_is_either_of_its_ends() -> None:
    choice = _choose("the plane at the end of the row", _at(*((60.0 + 80 * n, 200.0) for n in range(5))))
    assert choice.code is not None
    assert set(choice.indices[:2]) == {0, 4}


def test_in_the_corner_and_at_the_edge() -> None:
    boxes = _at((256.0, 256.0), (480.0, 30.0), (300.0, 488.0))
    assert _choose("the plane in the corner", boxes).indices == (1,)
