"""The piece of work that a thread does now: what its log lines say of it, and where its seconds go.

Whoever owns the work, a request or a click or an expression, opens it with ``work``. Whoever does a stage of it adds to
``spent.get()`` what a clock said before and after. Stages: ``queue`` (others go first), ``fetch`` (the image's bytes
and hash), ``pixels`` (decoded), ``ground`` (coarse localization), ``embed``, ``segment`` (masks from prompts),
``boundary``, ``write`` (regions).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["STAGES", "in_words", "said", "spent", "work"]

STAGES = ("queue", "fetch", "pixels", "ground", "embed", "segment", "boundary", "write")
_unread: defaultdict[str, float] = defaultdict(float)

said: ContextVar[Mapping[str, object]] = ContextVar("said", default={})  # noqa: B039 - never changed, only replaced
"""Fields of every log line of this thread."""
spent: ContextVar[defaultdict[str, float]] = ContextVar("spent", default=_unread)
"""Seconds by stage of this thread's work, to be added to; outside of any work they are those of nobody."""


@contextmanager
def work(**fields: object) -> Iterator[defaultdict[str, float]]:
    """A piece of work of this thread; gives its seconds by stage.

    Every line that is logged in the block carries these ``fields``, and those around it; None is left out.
    """
    stages: defaultdict[str, float] = defaultdict(float)
    known = {name: value for name, value in fields.items() if value is not None}
    before, clock = said.set({**said.get(), **known}), spent.set(stages)
    try:
        yield stages
    finally:
        said.reset(before)
        spent.reset(clock)


def in_words(stages: Mapping[str, float]) -> str:
    """The stages that took time, in their order: ``fetch 0.12 s, ground 0.31 s``."""
    return ", ".join(f"{name} {stages[name]:.3f} s" for name in STAGES if name in stages) or "no time"
