"""The fuzz run in short: mutated requests and damaged files end in answers and in the project's own errors."""

from __future__ import annotations

import random

import pytest

from benchmarks.fuzz import fuzz
from benchmarks.mutations import changed_bytes, changed_json


@pytest.mark.parametrize(("part", "count"), [("routes", 400), ("importers", 700)])
@pytest.mark.filterwarnings("ignore")
def test_nothing_goes_wrong(part: str, count: int) -> None:
    (found,) = fuzz([part], count, seed=11).values()
    assert found.wrong == []
    assert found.inputs == count
    assert len(found.answers) > 1  # some are answered, some refused


def test_the_same_seed_gives_the_same_inputs_and_most_differ_from_what_was_there() -> None:
    value = {"a": [1, {"b": "x"}], "c": None}
    first = [changed_json(random.Random(seed), value) for seed in range(50)]
    again = [changed_json(random.Random(seed), value) for seed in range(50)]
    assert repr(first) == repr(again)
    assert sum(repr(one) != repr(value) for one in first) > 40
    assert value == {"a": [1, {"b": "x"}], "c": None}
    data = bytes(range(200))
    assert sum(changed_bytes(random.Random(seed), data) != data for seed in range(50)) > 40
