"""The last requests for predictions, for the page at ``/``."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

__all__ = ["AnsweredRequest", "LastRequests"]

_KEPT = 30


@dataclass(frozen=True)
class AnsweredRequest:
    """A request for predictions: when it came (seconds since the epoch), what it was, what became of it."""

    at: float
    project: int | None
    kind: str
    tasks: int
    outcome: str
    seconds: float


class LastRequests:
    """The last requests for predictions of this process. Thread-safe."""

    def __init__(self) -> None:
        self._rows: deque[AnsweredRequest] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self.began = time.time()

    def add(self, project: int | None, kind: str, tasks: int, outcome: str, seconds: float) -> None:
        """Keep what became of a request that took ``seconds``."""
        with self._lock:
            self._rows.append(AnsweredRequest(time.time(), project, kind, tasks, outcome, seconds))

    def newest_first(self) -> list[AnsweredRequest]:
        """The kept requests."""
        with self._lock:
            return list(reversed(self._rows))
