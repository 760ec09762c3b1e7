"""Right, wrong, abstained, offered: by boxes."""

from __future__ import annotations

import pytest

from backend.evaluation.choices import Picked, is_exactly, shares
from dataset_tools.geometry import Box

A, B, C = Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(40, 0, 50, 10)
NEAR_A, FAR_FROM_A = Box(1, 0, 11, 10), Box(6, 0, 16, 10)


@pytest.mark.parametrize(
    ("boxes", "targets", "expected"),
    [
        ([A], [A], True),
        ([NEAR_A], [A], True),
        ([FAR_FROM_A], [A], False),
        ([A, B], [B, A], True),
        ([A, B], [A], False),
        ([A], [A, B], False),
        ([A, NEAR_A], [A, B], False),  # one target answered twice is not two
        ([A, C], [A, B], False),
    ],
)
def test_each_box_is_one_target(boxes: list[Box], targets: list[Box], expected: bool) -> None:
    assert is_exactly(boxes, targets) == expected


def test_offered_counts_where_there_is_no_answer_and_among_the_first_four() -> None:
    assert Picked.of([], [B, NEAR_A], [A]) == Picked(False, False, True)
    assert Picked.of([], [B, C, B, C, A], [A]) == Picked(False, False, False)
    assert Picked.of([B], [A], [A]) == Picked(True, False, False)
    assert Picked.of([], [A], [A, B]) == Picked(False, False, False)


def test_shares() -> None:
    one = [
        Picked(True, True, False),
        Picked(True, False, False),
        Picked(False, False, True),
        Picked(False, False, False),
    ]
    assert shares(one) == {"n": 4, "right": 0.25, "wrong": 0.25, "abstained": 0.5, "offered": 0.5}
    assert shares([]) == {"n": 0, "right": 0.0, "wrong": 0.0, "abstained": 0.0, "offered": 0.0}
