"""Boxes and points in pixel coordinates; x to the right, y down, the origin at the image's upper left corner."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Point(NamedTuple):
    """A position (x, y) in pixels."""

    x: float
    y: float


class Box(NamedTuple):
    """An axis-aligned box (x0, y0, x1, y1) in pixels; x1 and y1 are exclusive, so width = x1 - x0."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Extent along x in pixels, never negative."""
        return max(0.0, self.x1 - self.x0)

    @property
    def height(self) -> float:
        """Extent along y in pixels, never negative."""
        return max(0.0, self.y1 - self.y0)

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width * self.height

    @property
    def center(self) -> Point:
        """The middle of the box."""
        return Point((self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2)

    def clip(self, width: int, height: int) -> Box:
        """The part of the box inside an image of ``width`` x ``height`` pixels."""
        x0, x1 = (min(max(v, 0.0), float(width)) for v in (self.x0, self.x1))
        y0, y1 = (min(max(v, 0.0), float(height)) for v in (self.y0, self.y1))
        return Box(x0, y0, x1, y1)

    def shifted(self, x: float, y: float) -> Box:
        """The box moved by (x, y) pixels."""
        return Box(self.x0 + x, self.y0 + y, self.x1 + x, self.y1 + y)

    def expand(self, factor: float) -> Box:
        """The box scaled about its center by ``factor``."""
        half_w, half_h = self.width * factor / 2, self.height * factor / 2
        cx, cy = self.center
        return Box(cx - half_w, cy - half_h, cx + half_w, cy + half_h)

    def iou(self, other: Box) -> float:
        """Intersection over union with another box, 0 when both are empty."""
        overlap = Box(
            max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1)
        ).area
        union = self.area + other.area - overlap
        return overlap / union if union > 0 else 0.0

    def contains(self, point: Point) -> bool:
        """Whether the point lies inside the box (upper and left borders included)."""
        return self.x0 <= point.x < self.x1 and self.y0 <= point.y < self.y1

    @classmethod
    def of_mask(cls, mask: npt.NDArray[np.bool_]) -> Box:
        """The tightest box around the true pixels of ``mask`` bool[H, W]; an empty box at 0, 0 if there is none."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            return cls(0.0, 0.0, 0.0, 0.0)
        return cls(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
