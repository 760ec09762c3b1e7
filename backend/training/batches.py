"""What a training reads and draws, made by processes of their own where that pays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Generic, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

__all__ = ["batches", "in_processes"]

Batch = TypeVar("Batch")
Item = TypeVar("Item")
Result = TypeVar("Result")

_ENDLESS = 1 << 40
"""More steps than a training that ends by the clock will have."""


class _OfSteps(Dataset[Batch], Generic[Batch]):
    """The batch of each step."""

    def __init__(self, make: Callable[[int], Batch]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> Batch:
        return self.make(step)


def batches(
    make: Callable[[int], Batch], first: int, last: int | None, workers: int, *, pin: bool = False
) -> Iterator[tuple[int, Batch]]:
    """Each step from ``first`` to ``last`` (None: without end) with ``make(step)``, in order.

    Args:
        make: depends on the step only, so that the number of workers changes nothing.
        first: step to begin with.
        last: step before which to end.
        workers: processes that make batches ahead; 0: they are made here, when they are asked for. They are forked:
            what ``make`` holds is shared with them, not copied.
        pin: put what the workers made into page-locked memory, from which a GPU takes it faster. Batches are then
            tensors in tuples, lists and dictionaries, or have a ``pin_memory`` of their own; others stay as they are.
    """
    steps = range(first, _ENDLESS if last is None else last)
    if workers == 0:
        for step in steps:
            yield step, make(step)
        return
    loader: DataLoader[Any] = DataLoader(
        _OfSteps(make),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=4,
        pin_memory=pin,
        multiprocessing_context="fork",
        worker_init_fn=_one_thread,
    )
    yield from enumerate(loader, first)


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """``work`` of each of ``items``, in order, by ``workers`` processes; 0: by this one."""
    if workers == 0:
        return [work(item) for item in items]
    with ProcessPoolExecutor(workers, mp_context=get_context("fork"), initializer=_one_thread) as pool:
        return list(pool.map(work, items, chunksize=8))


def _one_thread(_: int = 0) -> None:
    """As many processes as cores already: threads in each would only wait for one another."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    os.environ["OMP_NUM_THREADS"] = "1"
