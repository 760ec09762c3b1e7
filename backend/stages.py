"""Where time goes: seconds by stage of the piece of work that a thread does now.

Whoever does a stage adds to ``spent()`` what a clock said before and after; whoever owns the work, a click or an
expression, collects with ``measured()``. Stages: ``queue`` (others go first), ``fetch`` (the image's bytes and hash),
``pixels`` (decoded), ``ground`` (coarse localization), ``embed``, ``segment`` (masks from prompts), ``boundary``,
``write`` (regions).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["STAGES", "in_words", "measured", "spent"]

STAGES = ("queue", "fetch", "pixels", "ground", "embed", "segment", "boundary", "write")
_spent: ContextVar[defaultdict[str, float] | None] = ContextVar("spent", default=None)


def spent() -> defaultdict[str, float]:
    """Seconds by stage of this thread's work, to be added to; outside of any work one that nobody reads."""
    found = _spent.get()
    return defaultdict(float) if found is None else found


@contextmanager
def measured() -> Iterator[defaultdict[str, float]]:
    """A piece of work of this thread; gives its seconds by stage."""
    stages: defaultdict[str, float] = defaultdict(float)
    token = _spent.set(stages)
    try:
        yield stages
    finally:
        _spent.reset(token)


def in_words(stages: Mapping[str, float]) -> str:
    """The stages that took time, in their order: ``fetch 0.12 s, ground 0.31 s``."""
    return ", ".join(f"{name} {stages[name]:.3f} s" for name in STAGES if name in stages) or "no time"
