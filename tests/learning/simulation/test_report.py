"""Goals of a simulation, from rounds with known figures."""

from __future__ import annotations

from typing import Any

import pytest

from backend.learning.simulation.report import Rounds, goals, table


def rounds(curve: list[float], unknown: list[float], objects: list[int], clicks: list[float]) -> Rounds:
    found: list[dict[str, Any]] = []
    for number, quality in enumerate(curve):
        figures = {
            "all": {"mIoU": quality, "clicks": clicks[number], "accepted": quality / 2},
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
    assert found["accepted_gained"]["better"] == pytest.approx(0.1)


def test_the_table_gives_every_goal_with_its_range_over_seeds() -> None:
    results = {
        "random": {seed: rounds([0.4, 0.5], [0.0, 0.2], [0, 9], [4.0, 4.0 - seed]) for seed in range(2)},
    }
    first = [
        {"category": name, "seed": seed, "objects": 5, "P@0.5": 0.2 * seed + 0.1 * (name == "court")}
        for name in ("plane", "court")
        for seed in range(2)
    ]
    lines = table(results, first, None, ["plane", "court"])
    assert "| new category, P@0.5 after 1 accepted object(s) | 0.10 | 0.25 | none, 0 categories |" in lines
    assert (
        "| new category, P@0.5 after 5 accepted object(s) | 0.30 | 0.45 "
        "| 0.150 (0.050 to 0.250; 2 seed(s)), 2 categories |"
    ) in lines
    (saved,) = [line for line in lines if line.startswith("| clicks per object saved")]
    assert "random 0.125 (0.000 to 0.250; 2 seed(s))" in saved
