"""Batches made by other processes are those that this one would make, in the same order."""

from __future__ import annotations

import itertools
import os

import numpy as np

from backend.training.batches import batches, in_processes
from backend.training.run import step_generator


def draw(step: int) -> tuple[int, float]:
    return os.getpid(), float(step_generator(3, step).random())


def test_workers_change_nothing_but_who_draws() -> None:
    alone = list(batches(draw, 4, 12, 0))
    ahead = list(batches(draw, 4, 12, 2))
    assert [step for step, _ in ahead] == [step for step, _ in alone] == list(range(4, 12))
    assert [value for _, (_, value) in ahead] == [value for _, (_, value) in alone]
    assert os.getpid() not in {process for _, (process, _) in ahead}


def test_without_an_end_they_go_on() -> None:
    for workers in (0, 1):
        first = list(itertools.islice(batches(draw, 1, None, workers), 5))
        assert [step for step, _ in first] == [1, 2, 3, 4, 5]


def test_images_read_by_processes_keep_their_order() -> None:
    arrays = [np.full(3, number) for number in range(20)]
    for workers in (0, 2):
        assert [int(total) for total in in_processes(np.sum, arrays, workers)] == [3 * number for number in range(20)]
