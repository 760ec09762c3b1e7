"""Drawn scenes that the end-to-end tests label, and where to click in them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools import synthetic
from dataset_tools.synthetic import Scene

Mask = npt.NDArray[np.bool_]


def airplane_scene() -> Scene:
    """800 x 600 px with three large airplanes, far apart: at the left, at the top, at the right."""
    return synthetic.draw_scene(8001, theme="airport", scale=1.3)


def building_scene() -> Scene:
    """800 x 600 px with houses."""
    return synthetic.draw_scene(12, theme="town", scale=1.3)


def airplanes(scene: Scene) -> tuple[Mask, Mask, Mask]:
    """bool[H, W] of the left, the upper and the right airplane of ``airplane_scene``."""
    left, upper, right = sorted(
        (item.mask for item in scene.objects if item.category == "airplane"), key=lambda mask: _center(mask)[0]
    )
    return left, upper, right


def inner_point(mask: Mask) -> tuple[float, float]:
    """The point deepest inside ``mask``, as fractions of the image's width and height."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(x) + 0.5) / mask.shape[1], (float(y) + 0.5) / mask.shape[0]


def corners(mask: Mask, margin: int = 3) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two corners of a box around ``mask``, ``margin`` px wider, as fractions of the image's width and height."""
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    return (
        ((xs.min() - margin) / width, (ys.min() - margin) / height),
        ((xs.max() + 1 + margin) / width, (ys.max() + 1 + margin) / height),
    )


def _center(mask: Mask) -> tuple[float, float]:
    ys, xs = np.nonzero(mask)
    return float(xs.mean()), float(ys.mean())
