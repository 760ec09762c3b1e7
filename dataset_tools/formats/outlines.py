"""Masks as the polygons and rotated boxes of other formats, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_tools.masks import Mask, from_coco

Corners = npt.NDArray[np.float64]
"""float64[N, 2], (x, y) in pixels."""


def flat_polygons(segmentation: Any) -> Any:
    """COCO's list of polygons [x, y, x, y, ...] where a tool wrote one in another way; anything else as it is.

    Other ways: one polygon without a list around it, and points as pairs [[x, y], [x, y], ...].
    """
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation
    if all(isinstance(value, int | float) for value in segmentation):
        return [segmentation]
    if _is_points(segmentation):
        return [_flat(segmentation)]
    if any(_is_points(part) for part in segmentation):
        return [_flat(part) if _is_points(part) else part for part in segmentation]
    return segmentation


def _is_points(part: Any) -> bool:
    pairs = isinstance(part, list) and len(part) > 2 and all(isinstance(p, list) and len(p) == 2 for p in part)
    return pairs and all(isinstance(value, int | float) for pair in part for value in pair)


def _flat(points: Sequence[Sequence[float]]) -> list[float]:
    return [value for point in points for value in point]


def joined(polygons: Sequence[Sequence[float]]) -> list[float]:
    """Several polygons [x, y, ...] as one, parts tied together by lines of no width between their nearest corners."""
    parts = [np.reshape(polygon, (-1, 2)).astype(np.float64) for polygon in polygons]
    whole: Corners = parts[0]
    for part in parts[1:]:
        apart = ((whole[:, None] - part[None]) ** 2).sum(axis=2)
        here, there = (int(place) for place in np.unravel_index(int(apart.argmin()), apart.shape))
        turned = np.roll(part, -there, axis=0)
        whole = np.concatenate((whole[: here + 1], turned, turned[:1], whole[here:]))
    return [float(value) for value in whole.reshape(-1)]


@dataclass
class Loss:
    """What outlines lost of masks: intersection over union, summed and least, and where that was."""

    objects: int = 0
    changed: int = 0
    total: float = 0.0
    least: float = 1.0
    where: str = ""

    def add(self, mask: Mask, polygons: Sequence[Sequence[float]], image: str) -> float:
        """Compare a mask with the polygons that stand for it; returns their intersection over union."""
        filled = from_coco([list(polygon) for polygon in polygons], *mask.shape)
        both = int((filled & mask).sum()) / max(1, int((filled | mask).sum()))
        self.objects += 1
        self.changed += both < 1
        self.total += both
        if both < self.least:
            self.least, self.where = both, image
        return both

    def __str__(self) -> str:
        if not self.changed:
            return f"all {self.objects:,} masks are kept pixel by pixel"
        return (
            f"{self.changed:,} of {self.objects:,} masks are changed (holes filled, outlines simplified): IoU with the "
            f"masks {self.total / self.objects:.4f} on average, {self.least:.4f} at least ({self.where})"
        )
