"""A lock whose turns go by urgency, not by chance."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["BACKGROUND", "Turns", "Urgency"]

Urgency = tuple[int, float]
"""Smaller goes first: a class (0: somebody waits in the editor), and within it when it was asked for."""
BACKGROUND: Urgency = (1, 0.0)


class Turns:
    """One at a time; of those who wait the most urgent is next, of equally urgent ones who came first."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Urgency, int]] = []
        self._numbers = itertools.count()
        self._taken = False
        self._condition = threading.Condition()

    @contextmanager
    def turn(self, urgency: Urgency = BACKGROUND) -> Iterator[None]:
        """Wait for the turn; it ends with the block."""
        with self._condition:
            mine = (urgency, next(self._numbers))
            heapq.heappush(self._waiting, mine)
            while self._taken or self._waiting[0] != mine:
                self._condition.wait()
            heapq.heappop(self._waiting)
            self._taken = True
        try:
            yield
        finally:
            with self._condition:
                self._taken = False
                self._condition.notify_all()
