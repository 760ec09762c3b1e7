"""Bounds of requests, looked at before anything is made of them: an honest request never comes near."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from dataset_tools.errors import ProtocolError, UnavailableError

__all__ = ["BodyBudget", "check_prompts", "check_structure"]

_MOST_CONTAINERS = 1_000_000
_MOST_VALUES = 24_000_000
_NESTED = 200
_MOST_ITEMS = 1_000
_MOST_CLICKS = 100


def check_structure(body: bytes) -> None:
    """Refuse JSON that would take far more memory than its text.

    Raises:
        ProtocolError: too many objects, lists or values.
    """
    containers = body.count(b"{") + body.count(b"[")
    if containers > _MOST_CONTAINERS:
        raise ProtocolError(f"the body has {containers} objects and lists, more than {_MOST_CONTAINERS}")
    values = body.count(b",")
    if values > _MOST_VALUES:
        raise ProtocolError(f"the body has {values} values, more than {_MOST_VALUES}")


def check_depth(body: bytes, value: object) -> None:
    """Refuse JSON that is nested so deep that it could not be written again.

    Raises:
        ProtocolError: it is.
    """
    if body.count(b"{") + body.count(b"[") < _NESTED:
        return
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise ProtocolError(f"the body is nested too deep: {error}") from None


def check_prompts(result: Sequence[Any]) -> None:
    """Refuse more prompts than an annotator draws: the time for an answer grows with their cube.

    Raises:
        ProtocolError: there are more.
    """
    if len(result) > _MOST_ITEMS:
        raise ProtocolError(f"params.context.result: {len(result)} items, more than {_MOST_ITEMS}")
    clicks = sum(
        isinstance(item, dict) and item.get("type") in ("keypointlabels", "brushlabels", "rectanglelabels")
        for item in result
    )
    if clicks > _MOST_CLICKS:
        raise ProtocolError(f"params.context.result: {clicks} clicks, boxes and strokes, more than {_MOST_CLICKS}")


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
