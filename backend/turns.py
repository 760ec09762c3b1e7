"""What threads share: one that computes in turns by urgency, a lock in the order of coming, and budgets of bytes."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from backend.memory import forget_locals
from backend.work import spent
from dataset_tools.errors import ImageError

__all__ = ["BACKGROUND", "BytesInFlight", "DecodeMemory", "FairLock", "Turns", "Urgency", "promised"]

Urgency = tuple[int, float]
"""Smaller goes first: a class (0: somebody waits in the editor), and within it when it was asked for."""
BACKGROUND: Urgency = (1, 0.0)
_IDLE = 10.0
T = TypeVar("T")


def promised(function: Callable[[], T]) -> tuple[Callable[[], None], Future[T]]:
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

        run, future = promised(counted)
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


class FairLock:
    """One at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._line: deque[object] = deque()
        self._condition = threading.Condition()

    def __enter__(self) -> None:
        mine = object()
        with self._condition:
            self._line.append(mine)
            self._condition.wait_for(lambda: self._line[0] is mine)

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._line.popleft()
            self._condition.notify_all()


class BytesInFlight:
    """Bytes of image files that are fetched and not decoded yet, all threads together. Thread-safe.

    Args:
        most: beyond so many a further image is refused; one alone may be larger.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()

    @contextmanager
    def account(self) -> Iterator[Callable[[int], None]]:
        """Gives what is to be called with the number of bytes that came; they count until the block ends.

        What it gives raises ImageError where the images of others leave no room.
        """
        mine = 0

        def came(count: int) -> None:
            nonlocal mine
            with self._lock:
                if self._held > mine and self._held + count > self._most:
                    raise ImageError(
                        f"images of {self._held} bytes are being fetched (PSLG_IMAGE_BYTES limits them together, too):"
                        " ask again later"
                    )
                self._held += count
                mine += count

        try:
            yield came
        finally:
            with self._lock:
                self._held -= mine


class DecodeMemory:
    """Memory for decoding images: who needs more than is free waits. Thread-safe.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = most
        self._condition = threading.Condition()
        self._line = FairLock()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """While an image is decoded that takes ``size`` bytes.

        Raises:
            ImageError: it takes more than there is.
        """
        if size > self._most:
            raise ImageError(
                f"decoding the image takes {size / 1e6:.0f} MB, more than {self._most / 1e6:.0f} (PSLG_DECODE_MEMORY);"
                " cut it into tiles (pslg dataset tile), or save it with 8 bits and three bands"
            )
        with self._line, self._condition:  # in their order, so that small ones do not pass a large one for ever
            while self._free < size:
                self._condition.wait()
            self._free -= size
        try:
            yield
        finally:
            with self._condition:
                self._free += size
                self._condition.notify_all()
