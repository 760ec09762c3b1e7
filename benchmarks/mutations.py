"""Inputs that nobody means well with: JSON values and files, changed at random places. For ``benchmarks.fuzz``."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

__all__ = ["changed_bytes", "changed_json"]

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
            home[key] = copy.deepcopy(other[its]) if its in _keys(other) else None
        elif what < 0.9 and isinstance(home, list):
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
