"""What a reader passes over: single rows that cannot be used, each with its place and the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from dataset_tools.errors import DatasetError


@dataclass(frozen=True)
class LeftOut:
    """A row that was not read.

    Attributes:
        where: file and row, as a person would look for it.
        why: the reason, with the value seen.
        image: file name of its image, where that is known.
        code: of ``dataset_tools.checks.findings``.
    """

    where: str
    why: str
    image: str | None = None
    code: str = "row-unusable"


Report: TypeAlias = Callable[[LeftOut], object]
"""Receives what is left out; reading goes on with the next row if it returns."""


def refuse(row: LeftOut) -> None:
    """The strict way: the first unusable row ends the reading. Raises DatasetError."""
    raise DatasetError(f"{row.where}: {row.why}")
