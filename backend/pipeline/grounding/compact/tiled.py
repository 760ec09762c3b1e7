"""Detections in images that lose their small objects when they are reduced to what the network reads at once.

Tiles find the small objects, the whole image the large ones. A tile is read like an image of its own, so scores mean
the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.pipeline.grounding.compact.detections import Detection, detect
from backend.pipeline.grounding.compact.network import Detector
from backend.pipeline.types import Image
from dataset_tools.geometry import Box
from dataset_tools.maps.tiles import windows

__all__ = ["LARGEST_WHOLE", "detect_anywhere"]

LARGEST_WHOLE = 2048
"""Longest side in pixels of images that are read as a whole only: 1280 pixels of it are read, 0.625 of its size."""
_TILE = 1280
_OVERLAP = 256
"""Objects up to this long are whole in at least one tile."""
_BORDER = 3.0
"""A box that ends this many pixels from a cut is taken to be cut."""
_INSIDE = 0.8


def detect_anywhere(
    detector: Detector, image: Image, scales: Sequence[int], threshold: float, *, bfloat16: bool = False
) -> list[Detection]:
    """``detect``, in tiles too where a side of ``image`` uint8[H, W, 3] RGB is longer than ``LARGEST_WHOLE``.

    Tiles of 1280 pixels overlap by 256; what a cut touches is left to the neighbouring tile or, if it is longer than
    the overlap, to the reading of the whole image. A part found in a tile gives way to the whole object found with at
    least its score.
    """
    height, width = image.shape[:2]
    whole = detect(detector, image, scales, threshold, bfloat16=bfloat16)
    if max(height, width) <= LARGEST_WHOLE:
        return whole
    found = [d for d in whole if max(d.box.width, d.box.height) > _OVERLAP / 2]
    for x, y, w, h in windows(width, height, _TILE, _OVERLAP):
        tile = np.ascontiguousarray(image[y : y + h, x : x + w])
        for part in detect(detector, tile, scales, threshold, bfloat16=bfloat16):
            box = part.box.shifted(x, y)
            if not _is_cut(box, Box(x, y, x + w, y + h), width, height):
                found.append(Detection(box, part.category, part.score))
    return _suppressed(found)


def _is_cut(box: Box, tile: Box, width: int, height: int) -> bool:
    """Whether ``box`` ends at a border of ``tile`` that is no border of the image."""
    return (
        (box.x0 < tile.x0 + _BORDER and tile.x0 > 0)
        or (box.y0 < tile.y0 + _BORDER and tile.y0 > 0)
        or (box.x1 > tile.x1 - _BORDER and tile.x1 < width)
        or (box.y1 > tile.y1 - _BORDER and tile.y1 < height)
    )


def _suppressed(found: Sequence[Detection]) -> list[Detection]:
    """The detections without repeats of better ones of their category, and without parts of them; best first."""
    ranked = sorted(found, key=lambda detection: -detection.score)
    boxes = np.array([detection.box for detection in ranked], np.float64).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    names = np.array([detection.category for detection in ranked])
    alive = np.ones(len(ranked), bool)
    kept = []
    for index, detection in enumerate(ranked):
        if not alive[index]:
            continue
        kept.append(detection)
        low, high = np.maximum(boxes[index, :2], boxes[:, :2]), np.minimum(boxes[index, 2:], boxes[:, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        repeated = (shared > 0.5 * (areas + areas[index] - shared)) | (shared >= _INSIDE * areas)
        alive &= ~(repeated & (names == names[index]))
    return kept
