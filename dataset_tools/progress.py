"""Progress bars on stderr; none where that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["progress_bar", "tracked"]

T = TypeVar("T")


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """A bar on stderr; gives the function that moves it."""
    from tqdm import tqdm

    with tqdm(desc=what, total=total, unit=" images", file=sys.stderr, disable=None) as bar:
        yield bar.update


def tracked(what: str, unit: str) -> Callable[[Iterable[T]], Iterable[T]]:
    """A function that goes through a sequence with a bar on stderr."""
    from tqdm import tqdm

    def track(items: Iterable[T]) -> Iterable[T]:
        bar: Iterable[T] = tqdm(items, desc=what, unit=unit, file=sys.stderr, disable=None)
        return bar

    return track
