"""Where an object ends that was found by examples: what the segmenter is surest of, as large as they are.

A detector that never saw such objects says well where one is and badly how large it is. So the mask in its box has
a rival: what the segmenter outlines around the place alone, in a window for an object of the examples' size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from backend.pipeline.types import Box, Likeness, Mask, MaskPrediction, Point, Prompts

__all__ = ["best_outline", "is_repeated"]

_ROOM = 1.6
"""Side of the square that an object may fill, in mean longer sides of the examples."""
_MISFIT = 0.2
"""What a size that is off by a factor of e costs, in predicted IoU."""
_MOST_MISFIT = 3.0
_REPEATED, _INSIDE = 0.5, 0.8
"""IoU with a better mask, or share that lies in one, from which a mask outlines that object again, or a part of it."""


def best_outline(
    in_box: MaskPrediction, like: Likeness, outline: Callable[[Box, Prompts], MaskPrediction]
) -> MaskPrediction:
    """``in_box`` or its rival.

    Args:
        in_box: the mask for the detector's box.
        like: where the object is and how large its examples are.
        outline: the mask for prompts, in the window for an object in a box.
    """
    x, y = like.place
    point = Prompts(np.array([like.place], np.float32), np.ones(1, np.int64))
    half = _ROOM * float(np.mean([max(size) for size in like.sizes])) / 2
    rival = outline(Box(x - half, y - half, x + half, y + half), point)
    both = (in_box, replace(rival, mask=_part_at(rival.mask, like.place)))
    return max((one for one in both if one.mask.any()), key=lambda one: _worth(one, like), default=in_box)


def is_repeated(mask: Mask, others: list[Mask]) -> bool:
    """Whether ``mask`` bool[H, W] outlines the same object as one of ``others``, or a part of it."""
    shared = [((mask & other).sum(), (mask | other).sum()) for other in others]
    return any(both > _REPEATED * either or both > _INSIDE * mask.sum() for both, either in shared)


def _worth(found: MaskPrediction, like: Likeness) -> float:
    box = Box.of_mask(found.mask)
    off = min(
        abs(math.log(box.width / width)) + abs(math.log(box.height / height))
        for long, wide in like.sizes
        for width, height in ((long, wide), (wide, long))
    )
    return found.predicted_iou * found.stability - _MISFIT * min(off, _MOST_MISFIT)


def _part_at(mask: Mask, place: Point) -> Mask:
    """The part of a mask that holds ``place``; all of it where none does."""
    if not mask.any():
        return mask
    height, width = mask.shape
    row, column = min(max(int(place.y), 0), height - 1), min(max(int(place.x), 0), width - 1)
    if not mask[row, column]:
        return mask
    x0, y0, x1, y1 = map(int, Box.of_mask(mask))
    _, parts = cv2.connectedComponents(mask[y0:y1, x0:x1].astype(np.uint8))
    kept = np.zeros_like(mask)
    kept[y0:y1, x0:x1] = parts == parts[row - y0, column - x0]
    return kept
