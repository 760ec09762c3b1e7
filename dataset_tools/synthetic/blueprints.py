"""Blueprints: objects as painted polygons in their own frame, before they have a place in a scene.

The frame's origin is the object's centre, x points forward, y to the right of it (down when the object points right);
units are pixels. Everything is a polygon (circles and lines too), so one renderer draws all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Points: TypeAlias = npt.NDArray[np.float64]
"""float64[N, 2]: x, y of a polygon's corners in the object's frame, in pixels."""
Rgb: TypeAlias = tuple[float, float, float]
"""Red, green, blue in 0..255."""
Draw: TypeAlias = "Callable[[np.random.Generator, float, Points], Blueprint]"
"""``draw(rng, length in pixels, unit vector towards the sun in the object's frame)``."""


@dataclass(frozen=True)
class BlueprintPart:
    """One polygon: its corners, its colour (None adds to the mask without paint) and whether the mask includes it."""

    points: Points
    rgb: Rgb | None
    in_mask: bool = True
    opacity: float = 1.0


@dataclass
class Blueprint:
    """One object to be drawn.

    Attributes:
        category: canonical category name.
        color: the colour word an annotator would use, None where colour does not tell objects apart.
        height: height above the ground in pixels of shadow length.
        parts: polygons, painted in this order.
    """

    category: str
    color: str | None = None
    height: float = 0.0
    parts: list[BlueprintPart] = field(default_factory=list)

    def add(self, points: Points, rgb: Rgb | None, in_mask: bool = True, opacity: float = 1.0) -> None:
        """Paint one more polygon."""
        self.parts.append(BlueprintPart(points, rgb, in_mask, opacity))

    def extent(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) around all parts in the object's frame."""
        points = np.concatenate([part.points for part in self.parts])
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)


def polygon(*points: tuple[float, float]) -> Points:
    """A polygon of the corners given."""
    return np.asarray(points, dtype=np.float64)


def rectangle(x: float, y: float, width: float, height: float) -> Points:
    """An axis-aligned rectangle about the centre (x, y)."""
    w, h = width / 2, height / 2
    return polygon((x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h))


def rounded(x: float, y: float, width: float, height: float, radius: float) -> Points:
    """A rectangle about (x, y) with round corners."""
    w, h = width / 2 - radius, height / 2 - radius
    corners = [(x + w, y + h, 0), (x - w, y + h, 90), (x - w, y - h, 180), (x + w, y - h, 270)]
    return np.concatenate([arc(cx, cy, radius, start, start + 90, 6) for cx, cy, start in corners])


def arc(x: float, y: float, radius: float, start: float, end: float, steps: int = 24) -> Points:
    """Points on a circle about (x, y) from ``start`` to ``end`` degrees (0 = forward, 90 = right)."""
    angles = np.radians(np.linspace(start, end, steps))
    return np.stack((x + radius * np.cos(angles), y + radius * np.sin(angles)), axis=1)


def circle(x: float, y: float, radius: float) -> Points:
    """A disk about (x, y)."""
    return arc(x, y, radius, 0, 360, max(12, min(64, int(radius * 2))))[:-1]


def sector(x: float, y: float, radius: float, start: float, end: float) -> Points:
    """A piece of pie with its tip at (x, y)."""
    return np.concatenate((polygon((x, y)), arc(x, y, radius, start, end, 32)))


def band(center_line: Points, width: float) -> Points:
    """A polyline drawn with a pen of ``width`` pixels."""
    direction = np.gradient(center_line, axis=0)
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    normal = np.stack((-direction[:, 1], direction[:, 0]), axis=1) * (width / 2)
    return np.concatenate((center_line + normal, (center_line - normal)[::-1]))


def line(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """A straight stroke of ``width`` pixels."""
    return band(polygon((x0, y0), (x1, y1)), width)


def mirrored(points: Points) -> Points:
    """The polygon on the other side of the object's long axis."""
    return points * (1.0, -1.0)


def shade(rgb: Rgb, factor: float) -> Rgb:
    """``rgb`` made lighter (factor > 1) or darker, within 0..255."""
    red, green, blue = (min(255.0, max(0.0, value * factor)) for value in rgb)
    return red, green, blue


def vary(rng: np.random.Generator, rgb: Rgb, spread: float = 8.0) -> Rgb:
    """``rgb`` with the brightness and each channel changed a little."""
    common = rng.normal(0, spread)
    red, green, blue = (float(np.clip(value + common + rng.normal(0, spread / 3), 0, 255)) for value in rgb)
    return red, green, blue
