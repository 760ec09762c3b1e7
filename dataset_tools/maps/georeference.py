"""Where an image lies on the map: a coordinate reference system and an affine transform."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from dataset_tools.errors import DatasetError

__all__ = ["Georeference", "of_world_file"]

Transform: TypeAlias = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f; pixel corners, not centres."""


@dataclass(frozen=True)
class Georeference:
    """Where an image lies.

    Attributes:
        crs: coordinate reference system as ``EPSG:<code>`` or WKT; None if unknown.
        transform: from pixels (column, row), the corner of the upper left pixel at (0, 0), to map coordinates.
    """

    crs: str | None
    transform: Transform

    def shifted(self, x: float, y: float) -> Georeference:
        """The georeference of a part whose upper left corner is at (x, y) pixels."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a, b, a * x + b * y + c, d, e, d * x + e * y + f))

    def scaled(self, factor_x: float, factor_y: float) -> Georeference:
        """The georeference of the image resampled to ``factor`` times as many columns and rows."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a / factor_x, b / factor_y, c, d / factor_x, e / factor_y, f))

    def position(self, column: float, row: float) -> tuple[float, float]:
        """Map coordinates of a position in pixels."""
        a, b, c, d, e, f = self.transform
        return a * column + b * row + c, d * column + e * row + f

    @property
    def pixel(self) -> tuple[float, float]:
        """Width and height of a pixel in units of the coordinate reference system."""
        a, b, _, d, e, _ = self.transform
        return math.hypot(a, d), math.hypot(b, e)

    @property
    def is_degenerate(self) -> bool:
        """Whether the transform cannot be turned around: it maps the image to a line or a point."""
        a, b, _, d, e, _ = self.transform
        return not all(map(math.isfinite, self.transform)) or a * e - b * d == 0

    def to_json(self) -> dict[str, Any]:
        """``crs`` and ``transform`` as JSON values."""
        return {"crs": self.crs, "transform": list(self.transform)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Georeference | None:
        """Of a mapping with ``transform`` and ``crs``, as in ``tiles.jsonl``; None if it has no usable transform."""
        numbers = values.get("transform")
        crs = values.get("crs")
        try:
            a, b, c, d, e, f = (float(number) for number in numbers or ())
        except (TypeError, ValueError):
            return None
        found = cls(str(crs) if crs else None, (a, b, c, d, e, f))
        return None if found.is_degenerate else found


def of_world_file(image: Path) -> Georeference | None:
    """Of the world file beside ``image`` (``.tfw``, ``.jgw``, ``.pgw``, ``.wld``), which knows no CRS; else None.

    Raises:
        DatasetError: it does not hold six numbers.
    """
    for suffix in (image.suffix[:2] + image.suffix[-1:] + "w", ".wld"):
        world = image.with_suffix(suffix)
        if world.is_file():
            try:
                a, d, b, e, c, f = (float(word) for word in world.read_text().split())
            except ValueError:
                raise DatasetError(f"{world} must hold six numbers, one per line") from None
            # A world file gives the centre of the upper left pixel, a transform its corner.
            return Georeference(None, (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2))
    return None
