"""How far a long command is: a bar where stderr is a terminal, elsewhere a line for every tenth part."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

__all__ = ["Bar", "progress_bar", "tracked"]

T = TypeVar("T")
_QUICK = 2.0
"""Seconds of work about which a log says nothing."""
_SECONDS = 60.0
"""Between two lines where nobody knows how much there is to do."""
_LINE = "{percentage:3.0f}% of {total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
_ENDLESS = "{n_fmt} [{elapsed}, {rate_fmt}{postfix}]"


class Bar(tqdm):  # type: ignore[misc]
    """A tqdm on stderr; in a log, where redraws would be thousands of lines, each tenth part is one.

    What takes less than two seconds says nothing there; where the total is not known, a line comes once a minute.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.in_lines = not sys.stderr.isatty()
        self._began = self._last = time.monotonic()
        self._tenth = 11  # tqdm draws while it is being made
        super().__init__(*arguments, **options)
        self._tenth = 10 * self.n // self.total if self.total else 0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write a line if one is due."""
        if not self.in_lines:
            super().display(msg, pos)
            return
        now = time.monotonic()
        tenth = 10 * self.n // self.total if self.total else 0
        due = tenth > self._tenth if self.total else now - self._last > _SECONDS
        if not due:
            return
        self._tenth, self._last = tenth, now
        if now - self._began > _QUICK:
            text = self.format_meter(**{**self.format_dict, "bar_format": _LINE if self.total else _ENDLESS})
            what = self.desc.removesuffix(": ")
            self.fp.write(f"{what}: {text}\n" if what else f"{text}\n")
            self.fp.flush()

    def close(self) -> None:
        """End it; a bar stays as it was last."""
        if self.in_lines and not self.disable:
            self.display()
            self.leave = False
        super().close()

    def clear(self, nolock: bool = False) -> None:
        """Take the bar off the terminal; lines stay."""
        if not self.in_lines:
            super().clear(nolock)


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """A bar on stderr; gives the function that moves it."""
    with Bar(desc=what, total=total, unit=" images", file=sys.stderr) as bar:
        yield bar.update


def tracked(what: str, unit: str) -> Callable[[Iterable[T]], Iterable[T]]:
    """A function that goes through a sequence with a bar on stderr."""

    def track(items: Iterable[T]) -> Iterable[T]:
        bar: Iterable[T] = Bar(items, desc=what, unit=unit, file=sys.stderr)
        return bar

    return track
