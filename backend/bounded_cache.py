"""A thread-safe cache bounded in bytes that drops what was not used for longest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Keeps at most ``capacity`` bytes; an entry larger than that is not kept at all."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """The value of ``key``, now the most recently used; None without one."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Key, value: Value, size: int) -> int:
        """Keep ``value``, which takes ``size`` bytes; the number of old entries dropped to make room."""
        with self._lock:
            self._drop(key)
            if size > self.capacity:
                return 0
            self._entries[key] = (value, size)
            self.size += size
            dropped = 0
            while self.size > self.capacity:
                self._drop(next(iter(self._entries)))
                dropped += 1
            return dropped

    def drop(self, key: Key) -> None:
        """Keep nothing for ``key``."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry[1]
