"""Corrective clicks: the next click lies in the deepest point of the largest error region."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Correction", "deepest_point", "next_click"]


class Correction(NamedTuple):
    """One click at the pixel (x, y); ``positive`` adds to the mask, otherwise the click takes away."""

    x: int
    y: int
    positive: bool


def deepest_point(region: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel (x, y) of ``region`` bool[H, W] farthest from its border; the image's border counts as one.

    Raises:
        ValueError: the region is empty.
    """
    if not region.any():
        raise ValueError("an empty region has no deepest point")
    padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x) - 1, int(y) - 1


def next_click(predicted: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_]) -> Correction | None:
    """The corrective click for ``predicted`` against ``target``, both bool[H, W]; None if they are equal.

    The largest 4-connected region of missed or of wrongly covered pixels decides (missed first on a tie).
    """
    largest, choice = 0, None
    for wrong, positive in ((target & ~predicted, True), (predicted & ~target, False)):
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(wrong.astype(np.uint8), connectivity=4)
        if len(statistics) < 2:
            continue
        index = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
        area = int(statistics[index, cv2.CC_STAT_AREA])
        if area > largest:
            largest, choice = area, (labels == index, positive)
    return None if choice is None else Correction(*deepest_point(choice[0]), choice[1])
