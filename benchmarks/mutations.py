"""Inputs that nobody means well with, and what became of them. For ``benchmarks.fuzz``.

JSON values and files are changed at random places.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

__all__ = ["SLOW", "Keep", "Outcome", "changed_bytes", "changed_json", "dumped", "picture"]

SLOW = 10.0
"""Seconds of CPU time that no input may take."""

JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, -(2**63) - 1, 10**30, 6_000_000_000, 0.5, -0.0, 1e8, -1e8, 1e12,
    1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"), "", " ", "x", "0", "7", "9" * 30, "9" * 5000,
    "\0", "\n2026-01-01 ERROR forged", "\x1b[2J", "\u2028", "ä" * 300, "../../x", "/etc/passwd", "C:\\x", "a\\b",
    "<script>alert(1)</script>", "$x_{$", "{{x}}", "%s%n", "' OR 1=1 --", "x" * 10_000, [], [[]], [[[[]]]], {},
    {"size": [1, 1]}, {"size": [10**6, 10**6], "counts": "0"}, {"size": [8, 8], "counts": [10**12]}, [1e8, -1e8],
    [[0, 0], [1e8, 0], [1e8, 1e8]], [255] * 1000, [[0, 0], [100, 0], [100, 100]] * 400, {"length": 5},
    [-1, 300, "x", None], "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
)  # fmt: skip
"""Every killer of an earlier release is among them or one change away."""


def changed_json(rng: random.Random, value: Any) -> Any:
    """A copy of ``value`` with one to four places replaced by junk, taken away, doubled, nested or swapped."""
    changed = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(changed))
        if not places:
            return rng.choice(JUNK)
        home, key = rng.choice(places)
        what = rng.random()
        if what < 0.6:
            home[key] = copy.deepcopy(rng.choice(JUNK))
        elif what < 0.7:
            del home[key]
        elif what < 0.8:
            other, its = rng.choice(places)
            with contextlib.suppress(RecursionError):  # nested twice already: too deep for the copy, not for the reader
                home[key] = copy.deepcopy(other[its]) if its in _keys(other) else None
        elif what < 0.9 and isinstance(home, list):
            with contextlib.suppress(RecursionError):
                home.extend(copy.deepcopy(home[key]) for _ in range(rng.choice((1, 3, 40))))
        else:
            nested = home[key]
            for _ in range(rng.choice((1, 3, 30, 300))):
                nested = [nested]
            home[key] = nested
    return changed


def changed_bytes(rng: random.Random, data: bytes) -> bytes:
    """``data`` with bits flipped, bytes cut out, put in, repeated or broken off; now and then nothing of it at all."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        if not changed:
            break
        at = rng.randrange(len(changed))
        what = rng.random()
        if what < 0.4:
            changed[at] ^= 1 << rng.randrange(8)
        elif what < 0.6:
            changed[at] = rng.choice((0, 0x0A, 0x22, 0x2C, 0x5C, 0x7F, 0x80, 0xFF))
        elif what < 0.75:
            del changed[at : at + rng.choice((1, 2, 10, 1000))]
        elif what < 0.9:
            part = changed[at : at + rng.choice((1, 8, 100))]
            changed[at:at] = part * rng.choice((1, 2, 30))
        elif what < 0.95:
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        else:
            del changed[at:]
    return bytes(changed) if rng.random() > 0.01 else rng.randbytes(rng.randrange(2000))


def _keys(home: Any) -> range | Any:
    return range(len(home)) if isinstance(home, list) else home.keys()


def _places(value: Any, limit: int = 4000) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every place, at most so many."""
    pending = [value]
    count = 0
    while pending and count < limit:
        home = pending.pop()
        if not isinstance(home, dict | list):
            continue
        for key in list(_keys(home))[:200]:
            yield home, key
            count += 1
            pending.append(home[key])


def dumped(value: Any) -> bytes:
    """JSON of a value that JSON cannot always hold."""
    try:
        return orjson.dumps(value)
    except (orjson.JSONEncodeError, TypeError):
        try:
            return json.dumps(value).encode()  # numbers of any length, NaN and Infinity
        except (ValueError, RecursionError):
            return b"[" * 2000


def picture(seed: int = 0, width: int = 48, height: int = 40) -> bytes:
    """A small PNG with some structure."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
    pixels[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = (200, 60, 40)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Outcome:
    """What a part of the run saw.

    Attributes:
        inputs: how many were tried.
        answers: by status, or by the name of the error.
        wrong: what must not happen, with a description.
        slowest: seconds.
    """

    inputs: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "inputs": self.inputs, "answers": dict(self.answers.most_common()), "wrong": len(self.wrong),
            "first_wrong": self.wrong[:20], "slowest_s": round(self.slowest, 2),
        }  # fmt: skip


class Keep:
    """Writes the input at work to a folder, so that a crash can be told; nothing without one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._last = b""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def now(self, data: bytes) -> None:
        """This is tried next."""
        self._last = data
        if self._folder is not None:
            (self._folder / "at_work").write_bytes(data)

    def wrong(self, what: str, number: int) -> None:
        """It went wrong."""
        if self._folder is not None:
            (self._folder / f"wrong-{what}-{number}").write_bytes(self._last)
