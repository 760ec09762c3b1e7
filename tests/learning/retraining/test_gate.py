"""The promotion gate: which images measure, and what is promoted."""

from __future__ import annotations

import pytest

from backend.learning.retraining.gate import decide, is_held_out


def test_the_held_out_share_is_frozen_per_project_and_grows_with_the_share() -> None:
    keys = [f"{number:064x}" for number in range(2000)]
    few = {key for key in keys if is_held_out(7, key, 0.2)}
    many = {key for key in keys if is_held_out(7, key, 0.5)}
    assert few < many
    assert 0.17 < len(few) / len(keys) < 0.23
    assert few == {key for key in keys if is_held_out("7", key, 0.2)}
    assert few != {key for key in keys if is_held_out(8, key, 0.2)}
    assert not any(is_held_out(7, key, 0.0) for key in keys)


@pytest.mark.parametrize(
    ("figures", "promoted", "reason"),
    [
        ((0.50, 0.52, 0.60, 0.60), True, "0.500 -> 0.520"),
        ((0.50, 0.52, 0.60, 0.595), True, "0.600 -> 0.595"),
        ((0.50, 0.52, 0.60, 0.58), False, "more than 0.01 lost"),
        ((0.50, 0.50, 0.60, 0.70), False, "not better"),
        ((0.50, 0.52, None, None), True, "nothing to measure forgetting"),
        ((None, None, 0.60, 0.60), False, "no held-out image"),
    ],
)
def test_better_for_the_project_and_not_worse_elsewhere(
    figures: tuple[float | None, float | None, float | None, float | None], promoted: bool, reason: str
) -> None:
    decision, said = decide(*figures, tolerance=0.01)
    assert decision == promoted
    assert reason in said
