"""The promotion gate: which images measure, and what is promoted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from backend.learning.retraining.evidence import Answer, Crowd, Evidence
from backend.learning.retraining.gate import is_held_out
from backend.learning.retraining.verdict import Rules, decide


def test_the_held_out_share_is_frozen_per_project_and_grows_with_the_share() -> None:
    keys = [f"{number:064x}" for number in range(2000)]
    few = {key for key in keys if is_held_out(7, key, 0.2)}
    many = {key for key in keys if is_held_out(7, key, 0.5)}
    assert few < many
    assert 0.17 < len(few) / len(keys) < 0.23
    assert few == {key for key in keys if is_held_out("7", key, 0.2)}
    assert few != {key for key in keys if is_held_out(8, key, 0.2)}
    assert not any(is_held_out(7, key, 0.0) for key in keys)


def answers(gains: Sequence[float], category: str = "solar panel", before: float = 0.4) -> list[Answer]:
    """One expression per image; the new version answers it better by so much."""
    return [Answer(f"{category}{n}", category, before, before + gain) for n, gain in enumerate(gains)]


BETTER, SAME = answers([0.1, 0.2, 0.1, 0.15, 0.3, 0.1]), answers([0.0] * 8, "ship")
CASES: dict[str, tuple[Evidence, bool, str]] = {
    "better": (Evidence(12, 6, BETTER, SAME), True, "0.400 -> 0.558 on 12 objects, 6 expressions, 6 images"),
    "no replay": (Evidence(12, 6, BETTER, []), True, "nothing to measure forgetting"),
    "few objects": (Evidence(9, 6, BETTER, SAME), False, "waits for labels: 9 held-out objects"),
    "few images": (Evidence(40, 4, BETTER, SAME), False, "1 more images missing"),
    "nothing": (Evidence(0, 0, [], []), False, "10 more objects and 5 more images missing"),
    "not better": (Evidence(12, 6, answers([0.0] * 6), SAME), False, "not better"),
    "the pool": (Evidence(12, 6, answers([0.024, 0, 0, 0, 0, 0], before=0.0), SAME), False, "may be chance"),
    "luck": (Evidence(12, 6, answers([0.5, -0.2, 0.3, -0.2, 0.1, -0.1]), SAME), False, "may be chance"),
    "a category": (
        Evidence(12, 6, BETTER, [*answers([-0.1] * 4, "bridge"), *answers([0.2] * 9, "ship")]),
        False,
        "known categories got worse: bridge 0.400 -> 0.300 on 4 expressions",
    ),
    "forgotten": (Evidence(12, 6, BETTER, answers([-0.2, 0.1, -0.1, 0.1], "ship")), False, "more than 0.01 lost"),
    "crowd": (Evidence(12, 6, BETTER, SAME, [Crowd("solar panel", 37, 12)]), False, "37 objects called 'solar panel'"),
    "many": (Evidence(12, 6, BETTER, SAME, [Crowd("ship", 101, 90)]), False, "at most 100 are accepted"),
    "lessons": (
        Evidence(12, 6, BETTER, SAME, lessons=answers([-0.3] * 6, before=0.858)),
        False,
        'lessons alone ("more like this") reach 0.858',
    ),
    "no worse than lessons": (Evidence(12, 6, BETTER, SAME, lessons=answers([0.0] * 6, before=0.558)), True, "0.558"),
    "some": (Evidence(12, 6, BETTER, SAME, [Crowd("solar panel", 10, 1), Crowd("ship", 36, 12)]), True, "0.558"),
}


@pytest.mark.parametrize("name", CASES)
def test_better_beyond_chance_no_crowd_and_no_category_worse(name: str) -> None:
    evidence, promoted, reason = CASES[name]
    verdict = decide(evidence, Rules())
    assert verdict.promoted == promoted, verdict.reason
    assert reason in verdict.reason
    assert (verdict.advice is None) == promoted
    assert verdict.waits == verdict.reason.startswith("waits")
    assert verdict == decide(evidence, Rules())  # the bootstrap draws the same every time


def test_what_is_missing_is_counted_in_images_to_label() -> None:
    verdict = decide(Evidence(4, 2, BETTER, SAME), Rules(share=0.2))
    assert verdict.advice is not None
    assert "label about 15 more images" in verdict.advice  # 3 images, and 6 objects at 2 an image, of which 1 in 5
