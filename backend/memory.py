"""Memory of a long-lived server: freed memory goes back to the system instead of lying about in the allocator.

glibc gives threads arenas of their own, up to eight for each core. A server has many threads that each take and free
large blocks now and then, and every arena keeps the most it ever held: that, not what the caches hold, is most of what
a server grows by.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backend.turns import Turns
from dataset_tools.errors import ImageError

__all__ = ["BytesInFlight", "DecodeMemory", "MemoryTrimmer", "forget_locals", "give_back", "use_few_arenas"]

logger = logging.getLogger(__name__)

_M_ARENA_MAX = -8
_ARENAS = 2


def use_few_arenas() -> bool:
    """Let all threads of this process share two arenas; whether the C library has such a setting (glibc has)."""
    mallopt = _function("mallopt")
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, _ARENAS))


def give_back() -> bool:
    """Give memory that was freed back to the system; whether the C library can (glibc can)."""
    trim = _function("malloc_trim")
    if trim is None:
        return False
    trim(0)
    return True


class MemoryTrimmer:
    """Gives free memory back to the system now and then, in a thread of its own.

    Args:
        seconds: between two times.
    """

    def __init__(self, seconds: float = 20.0) -> None:
        self._seconds = seconds
        self._ended = threading.Event()
        self.times = 0

    def start(self) -> None:
        """Begin; does nothing where the C library cannot."""
        if give_back():
            threading.Thread(target=self._run, name="memory", daemon=True).start()

    def close(self) -> None:
        """End."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            give_back()
            self.times += 1


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


def forget_locals(error: BaseException) -> None:
    """Free what the ended functions that ``error`` came through had in hand; its traceback can still be printed.

    An error that is kept, in a future say, otherwise keeps the images and bodies that they were working on.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        found = pending.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        traceback.clear_frames(found.__traceback__)
        pending += [found.__cause__, found.__context__]


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):
        return None
