"""The colour of an object of which only the box is known."""

from __future__ import annotations

import numpy as np

from backend.pipeline.types import Image
from dataset_tools.colors import NAMES, Rgb, memberships
from dataset_tools.geometry import Box

_SURROUNDINGS = 1.3
"""The box expanded by this factor, without the box itself, shows what surrounds the object."""
_SURROUNDINGS_SHARE = 0.85
"""How much of the surroundings' share of a colour is taken off (0.7 to 1.0 name 84 to 88 % of synthetic objects)."""
_FALLOFF = 3.0
"""The weight of a pixel is exp(-_FALLOFF * r^2), r in half box sides from the middle."""
_LARGEST_SIDE = 96
"""Boxes are looked at with at most so many samples per side."""


def color_in_box(image: Image, box: Box) -> Rgb | None:
    """Colour of the object in ``box`` of ``image`` uint8[H, W, 3] RGB.

    Of the colour name most frequent in the middle of the box, beyond its share of the surroundings (a slanted object
    fills little of its box), the median of the pixels that go by it. None for an empty box.
    """
    height, width = image.shape[:2]
    outer = box.expand(_SURROUNDINGS).clip(width, height)
    step = max(1, int(max(outer.width, outer.height) / _LARGEST_SIDE))
    rows = np.arange(int(outer.y0), int(np.ceil(outer.y1)), step)
    columns = np.arange(int(outer.x0), int(np.ceil(outer.x1)), step)
    in_rows = (rows >= box.y0) & (rows < box.y1)
    in_columns = (columns >= box.x0) & (columns < box.x1)
    inside = in_rows[:, None] & in_columns[None, :]
    if not inside.any():
        return None
    pixels = image[np.ix_(rows, columns)]
    names = memberships(pixels).argmax(axis=-1)
    y = (rows + 0.5 - box.center.y) / (box.height / 2)
    x = (columns + 0.5 - box.center.x) / (box.width / 2)
    weights = np.exp(-_FALLOFF * (y[:, None] ** 2 + x[None, :] ** 2)) * inside
    in_box = np.bincount(names.ravel(), weights=weights.ravel(), minlength=len(NAMES))
    around = np.bincount(names[~inside], minlength=len(NAMES))
    excess = in_box / in_box.sum() - _SURROUNDINGS_SHARE * around / max(1, around.sum())
    red, green, blue = np.median(pixels[inside & (names == excess.argmax())], axis=0)
    return int(red), int(green), int(blue)
