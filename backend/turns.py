"""What threads share: a lock whose turns go by urgency, not by chance, and budgets of bytes."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dataset_tools.errors import ImageError, UnavailableError

__all__ = ["BACKGROUND", "BodyBudget", "BytesInFlight", "DecodeMemory", "Turns", "Urgency"]

Urgency = tuple[int, float]
"""Smaller goes first: a class (0: somebody waits in the editor), and within it when it was asked for."""
BACKGROUND: Urgency = (1, 0.0)


class Turns:
    """One at a time; of those who wait the most urgent is next, of equally urgent ones who came first.

    Args:
        grace: after an urgent turn (class 0) others begin only so many seconds later, in which the next urgent one may
            come.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self._grace = grace
        self._quiet = 0.0  # the time of ``time.monotonic`` from which on turns that are not urgent begin
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
            while True:
                is_next = not self._taken and self._waiting[0] == mine
                pause = self._quiet - time.monotonic() if urgency >= BACKGROUND else 0.0
                if is_next and pause <= 0:
                    break
                self._condition.wait(pause if is_next else None)
            heapq.heappop(self._waiting)
            self._taken = True
        try:
            yield
        finally:
            with self._condition:
                self._taken = False
                if urgency < BACKGROUND:
                    self._quiet = time.monotonic() + self._grace
                self._condition.notify_all()


class BodyBudget:
    """Bytes of bodies that are held at the same time. Thread-safe.

    Args:
        most: bytes; a body that alone is larger still gets through when there is no other.
        small: bodies up to this size are not counted.
    """

    def __init__(self, most: int, small: int = 1_000_000) -> None:
        self._most = most
        self._small = small
        self._held = 0
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """While a body of ``size`` bytes is read and answered.

        Raises:
            UnavailableError: too many large ones are being answered.
        """
        if size <= self._small:
            yield
            return
        with self._lock:
            if self._held and self._held + size > self._most:
                raise UnavailableError(
                    f"requests of {self._held} bytes are being answered (PSLG_BODY_BYTES limits one); ask later"
                )
            self._held += size
        try:
            yield
        finally:
            with self._lock:
                self._held -= size


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
        self._turns = Turns()

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
        with self._turns.turn(), self._condition:  # in their order, so that small ones do not pass a large one for ever
            while self._free < size:
                self._condition.wait()
            self._free -= size
        try:
            yield
        finally:
            with self._condition:
                self._free += size
                self._condition.notify_all()
