"""A pool of daemon threads that takes the most urgent job first."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, TypeVar

__all__ = ["JobPool", "Priority"]

T = TypeVar("T")


class Priority(IntEnum):
    """Smaller goes first: somebody waits in the editor, or a batch is being retrieved."""

    EDITOR = 0
    BATCH = 1


class JobPool:
    """Runs functions in ``workers`` threads; among waiting ones the smallest (priority, order of arrival) first.

    The threads are daemons: a batch that is being computed never keeps the process from ending.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._heap: list[tuple[int, int, Callable[[], None], Future[Any]]] = []
        self._numbers = itertools.count()
        self._condition = threading.Condition()
        self._closed = False
        for number in range(workers):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(self, priority: Priority, function: Callable[[], T]) -> Future[T]:
        """Queue ``function``; its result or exception goes into the future."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        with self._condition:
            heapq.heappush(self._heap, (int(priority), next(self._numbers), run, future))
            self._condition.notify()
        return future

    def waiting(self) -> int:
        """Number of jobs that no thread has taken yet."""
        return len(self._heap)

    def close(self) -> None:
        """Cancel the waiting jobs and end the threads after the jobs that they run."""
        with self._condition:
            self._closed = True
            for *_, future in self._heap:
                future.cancel()
            self._heap.clear()
            self._condition.notify_all()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._heap and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                *_, run, future = heapq.heappop(self._heap)
            if future.set_running_or_notify_cancel():
                run()
