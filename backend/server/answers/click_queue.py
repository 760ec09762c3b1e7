"""Who is served next when many clicks arrive at once.

The newest request of a task goes first, since the editor shows only the answer to the latest; a waiting request whose
prompts are the beginning of a newer one's is answered at once, empty; beyond a bound new requests are refused.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dataset_tools.errors import UnavailableError

__all__ = ["ClickQueue"]


@dataclass(eq=False)
class _Request:
    task: Hashable
    prompts: tuple[bytes, ...]
    number: int
    immediate: bool
    superseded: bool = False
    running: bool = False


class ClickQueue:
    """Lets ``running`` requests work at a time and keeps at most ``capacity`` working or waiting.

    More than one works at a time, so that a warm click need not wait for an image that is being embedded.
    """

    def __init__(self, capacity: int, running: int = 4) -> None:
        self._capacity = capacity
        self._running = running
        self._requests: list[_Request] = []
        self._numbers = itertools.count()
        self._condition = threading.Condition()

    def __len__(self) -> int:
        return len(self._requests)

    @contextmanager
    def turn(self, task: Hashable, prompts: Sequence[bytes], *, immediate: bool = False) -> Iterator[bool]:
        """Wait for this request's turn; gives False when a newer request has made it pointless.

        Args:
            task: requests of one task compete, those of different tasks take turns.
            prompts: the request's prompts in order, in a form that compares equal when they are the same.
            immediate: it waits elsewhere for its work (a text prompt among the pre-labels): it takes a place, but
                neither waits here nor keeps a click from working.

        Raises:
            UnavailableError: too many requests are waiting.
        """
        request = self._enter(task, tuple(prompts), immediate)
        try:
            yield self._wait(request)
        finally:
            with self._condition:
                self._requests.remove(request)
                self._condition.notify_all()

    def _enter(self, task: Hashable, prompts: tuple[bytes, ...], immediate: bool) -> _Request:
        with self._condition:
            request = _Request(task, prompts, next(self._numbers), immediate)
            for other in self._requests:
                shorter = len(other.prompts) < len(prompts) and other.prompts == prompts[: len(other.prompts)]
                if other.task == task and not other.running and not other.immediate and shorter:
                    other.superseded = True
            waiting = [other for other in self._requests if not other.superseded]
            if len(waiting) >= self._capacity:
                raise UnavailableError(
                    f"{len(waiting)} clicks are waiting already (PSLG_CLICK_QUEUE); click again later"
                )
            self._requests.append(request)
            self._condition.notify_all()
            return request

    def _wait(self, request: _Request) -> bool:
        if request.immediate:
            return True
        with self._condition:
            while not request.superseded and not self._is_next(request):
                self._condition.wait()
            request.running = not request.superseded
            return request.running

    def _is_next(self, request: _Request) -> bool:
        if sum(other.running for other in self._requests) >= self._running:
            return False
        waiting = [other for other in self._requests if not (other.running or other.superseded or other.immediate)]
        # The task that has waited longest is next; within it the newest request.
        task = min(waiting, key=lambda other: other.number).task
        return request is max((other for other in waiting if other.task == task), key=lambda other: other.number)
