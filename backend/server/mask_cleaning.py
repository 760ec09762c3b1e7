"""Masks that the editor can live with: no specks, no pin-holes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.pipeline.types import Mask, Point
from dataset_tools import masks
from dataset_tools.geometry import Box

__all__ = ["clean_mask"]


def clean_mask(mask: Mask, speck_area: int, hole_area: int, clicked: Sequence[Point] = ()) -> Mask:
    """``mask`` bool[H, W] without parts of fewer than ``speck_area`` pixels and holes of fewer than ``hole_area``.

    The largest part is kept whatever its size (a vehicle may have ten pixels), and so is every part under a point of
    ``clicked`` (x, y in pixels).
    """
    box = Box.of_mask(mask)
    if not box.area:
        return mask
    # Only the object's box is looked at, with a frame of background so that its border counts as outside.
    rows, columns = slice(int(box.y0), int(box.y1)), slice(int(box.x0), int(box.x1))
    part = np.pad(mask[rows, columns], 1)
    kept = masks.remove_specks(part, speck_area)
    parts = masks.components(part) if not kept.any() or clicked else []
    if parts and not kept.any():
        kept = parts[0]
    for point in clicked:
        x, y = int(point.x - box.x0) + 1, int(point.y - box.y0) + 1
        if 0 <= y < part.shape[0] and 0 <= x < part.shape[1] and part[y, x] and not kept[y, x]:
            kept = kept | next(component for component in parts if component[y, x])
    cleaned = np.zeros_like(mask)
    cleaned[rows, columns] = masks.fill_holes(kept, hole_area)[1:-1, 1:-1]
    return cleaned
