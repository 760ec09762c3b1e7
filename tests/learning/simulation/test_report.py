"""Goals of a simulation, from rounds with known figures."""

from __future__ import annotations

from typing import Any

import pytest

from backend.learning.simulation.report import Rounds, goals


def rounds(curve: list[float], unknown: list[float], objects: list[int], clicks: list[float]) -> Rounds:
    found: list[dict[str, Any]] = []
    for number, quality in enumerate(curve):
        figures = {
            "all": {"mIoU": quality, "clicks": clicks[number]},
            "known": {"mIoU": 0.6 - 0.01 * number},
            "unknown": {"mIoU": unknown[number]},
        }
        labelled = [{"task": f"{number}:{k}"} for k in range(10 if number else 0)]
        found.append({"labelled": labelled, "objects": {"plane": objects[number]}, "figures": figures})
    return found


def test_each_goal_has_its_number() -> None:
    random = {0: rounds([0.4, 0.45, 0.5], [0.0, 0.1, 0.2], [0, 5, 9], [4.0, 4.0, 4.0])}
    better = {
        0: rounds([0.4, 0.5, 0.6], [0.0, 0.2, 0.4], [0, 30, 60], [4.0, 3.0, 2.0]),
        1: rounds([0.4, 0.58, 0.6], [0.0, 0.4, 0.4], [0, 20, 40], [4.0, 3.0, 3.0]),
    }
    found = goals({"random": random, "better": better}, ["plane", "court"])
    # Seed 0 had 30 objects after round 1 and too many after round 2; seed 1 had 40 after round 2.
    assert found["few_objects"]["better"] == pytest.approx((0.2 / 0.59 + 0.4 / 0.58) / 2, abs=1e-3)
    # The mean curve 0.4, 0.54, 0.6 crosses random's final 0.5 after 10 * 0.1 / 0.14 of random's 20 labels.
    assert found["labels_for_random"] == {"better": pytest.approx(10 * 0.1 / 0.14 / 20, abs=1e-3)}
    assert found["clicks_saved"] == {"random": 0.0, "better": pytest.approx(0.375)}
    assert found["forgotten"]["better"] == pytest.approx(0.02)
