"""Work for other threads: one that computes in turns by urgency, pools that serve projects in turns."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from backend.memory import forget_locals
from backend.work import spent

__all__ = ["BACKGROUND", "JobPool", "Priority", "Turns", "Urgency"]

Urgency = tuple[int, float]
"""Smaller goes first: a class (0: somebody waits in the editor), and within it when it was asked for."""
BACKGROUND: Urgency = (1, 0.0)
_IDLE = 10.0
_REMEMBERED = 10_000
T = TypeVar("T")


class Priority(IntEnum):
    """Smaller goes first: somebody waits in the editor, or a batch is being retrieved."""

    EDITOR = 0
    BATCH = 1


def _promised(function: Callable[[], T]) -> tuple[Callable[[], None], Future[T]]:
    """What another thread is to call, and where the result or exception of ``function`` goes then.

    ``function`` sees the context variables of now: whose work it is, for the log.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:
            forget_locals(error)
            future.set_exception(error)

    return run, future


class Turns:
    """Runs functions one at a time in a thread of its own; the most urgent next, of equally urgent ones in their order.

    One thread, since numerical libraries keep buffers for every thread that ever computed. It ends when nothing was
    asked for some seconds, and is begun again.

    Args:
        grace: after an urgent function (class 0) others begin only so many seconds later, in which the next urgent one
            may come.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self._grace = grace
        self._quiet = 0.0  # the time of ``time.monotonic`` from which on what is not urgent begins
        self._waiting: list[tuple[Urgency, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._condition = threading.Condition()

    def run(self, function: Callable[[], T], urgency: Urgency = BACKGROUND) -> T:
        """What ``function`` returns or raises when its turn has come; it sees the caller's context variables."""
        return self.submit(function, urgency).result()

    def submit(self, function: Callable[[], T], urgency: Urgency = BACKGROUND) -> Future[T]:
        """As :meth:`run`, without waiting for it; what it raises is the future's."""
        asked = time.perf_counter()

        def counted() -> T:
            spent.get()["queue"] += time.perf_counter() - asked
            return function()

        run, future = _promised(counted)
        with self._condition:
            heapq.heappush(self._waiting, (urgency, next(self._numbers), run))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="turns", daemon=True)
                self._thread.start()
            self._condition.notify_all()
        return future

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            urgency, run = taken
            try:
                run()
            finally:
                del taken, run  # and with it what it holds, while the thread waits for the next
            if urgency < BACKGROUND:
                self._quiet = time.monotonic() + self._grace

    def _next(self) -> tuple[Urgency, Callable[[], None]] | None:
        """What is to be run now, once there is something; None where the thread is to end."""
        with self._condition:
            while True:
                if not self._waiting:
                    if not self._condition.wait_for(lambda: self._waiting, _IDLE):
                        self._thread = None
                        return None
                    continue
                pause = self._quiet - time.monotonic() if self._waiting[0][0] >= BACKGROUND else 0.0
                if pause <= 0:
                    urgency, _, run = heapq.heappop(self._waiting)
                    return urgency, run
                self._condition.wait(pause)


@dataclass(frozen=True)
class _Job:
    number: int
    run: Callable[[], None]
    future: Future[Any]


class JobPool:
    """Runs functions in ``workers`` threads, project by project.

    One host gets all threads but two at most, so that one that hangs does not hold up everybody. The threads are
    daemons: a batch that is being computed never keeps the process from ending.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._lanes: dict[tuple[Hashable, str], deque[_Job]] = {}
        self._numbers = itertools.count()
        self._served: dict[Hashable, int] = {}  # project -> when it was served last
        self._at_work: Counter[str] = Counter()  # by host
        self._host_share = max(1, workers - 2)
        self._condition = threading.Condition()
        self._closed = False
        for number in range(workers):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(self, function: Callable[[], T], *, project: Hashable = None, host: str = "") -> Future[T]:
        """Queue ``function``; its result or exception goes into the future.

        Args:
            function: called in one of the threads.
            project: projects take turns.
            host: that it will wait for; "" for none.
        """
        run, future = _promised(function)
        with self._condition:
            self._lanes.setdefault((project, host), deque()).append(_Job(next(self._numbers), run, future))
            self._condition.notify_all()
        return future

    def waiting(self) -> int:
        """Number of jobs that no thread has taken yet."""
        with self._condition:
            return sum(map(len, self._lanes.values()))

    def close(self) -> None:
        """Cancel the waiting jobs and end the threads after the jobs that they run."""
        with self._condition:
            self._closed = True
            for lane in self._lanes.values():
                for job in lane:
                    job.future.cancel()
            self._lanes.clear()
            self._condition.notify_all()

    def _next(self) -> tuple[Hashable, str] | None:
        """The lane whose first job goes next; None if none may."""
        free = [
            (self._served.get(key[0], -1), lane[0].number, key)
            for key, lane in self._lanes.items()
            if not key[1] or self._at_work[key[1]] < self._host_share
        ]
        return min(free, key=lambda item: item[:2])[2] if free else None

    def _work(self) -> None:
        while True:
            with self._condition:
                while (key := self._next()) is None and not self._closed:
                    self._condition.wait()
                if key is None or self._closed:
                    return
                job = self._lanes[key].popleft()
                if not self._lanes[key]:
                    del self._lanes[key]
                project, host = key
                if len(self._served) > _REMEMBERED:
                    self._served.clear()
                self._served[project] = next(self._numbers)
                self._at_work[host] += 1
            try:
                if job.future.set_running_or_notify_cancel():
                    job.run()
            finally:
                del job  # and with it what it has made, while the thread waits for the next
                with self._condition:
                    self._at_work[host] -= 1
                    if not self._at_work[host]:
                        del self._at_work[host]
                    self._condition.notify_all()
