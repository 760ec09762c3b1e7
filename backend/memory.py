"""Memory of a long-lived server: freed memory goes back to the system instead of lying about in the allocator.

glibc gives threads arenas of their own, up to eight for each core. A server has many threads that each take and free
large blocks now and then, and every arena keeps the most it ever held: that, not what the caches hold, is most of what
a server grows by.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import traceback

__all__ = ["MemoryTrimmer", "forget_locals", "give_back", "use_few_arenas", "use_huge_pages"]

logger = logging.getLogger(__name__)

_M_ARENA_MAX = -8
_ARENAS = 2


def use_few_arenas() -> bool:
    """Let all threads of this process share two arenas; whether the C library has such a setting (glibc has)."""
    mallopt = _function("mallopt")
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, _ARENAS))


def use_huge_pages() -> None:
    """Let torch take its large tensors in huge pages, where the kernel has some for those who ask (``madvise``).

    Call before torch makes its first tensor. A network's features are fresh memory each time (freed memory goes back),
    and the kernel hands it out page by page: a fifth of a detector's time at 800 pixels went there, 39,000 faults.
    Whoever sets the variable to 0 keeps small pages.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


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
