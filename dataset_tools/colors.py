"""Colour names of objects in RGB images, as annotators use them: the name most pixels of a region go by. Pure numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataset_tools.geometry import Box

__all__ = ["NAMES", "color_of_box", "color_of_mask", "name_pixels", "similarity"]

NAMES = ("white", "gray", "black", "red", "orange", "brown", "yellow", "green", "cyan", "blue", "purple", "pink")
"""What a region can be called. Expressions also say ``dark`` and ``light``: see :func:`similarity`."""

_HUES = (  # (name, first hue in degrees, last hue); red wraps around
    ("red", 345.0, 15.0),
    ("orange", 15.0, 42.0),
    ("yellow", 42.0, 68.0),
    ("green", 68.0, 165.0),
    ("cyan", 165.0, 195.0),
    ("blue", 195.0, 260.0),
    ("purple", 260.0, 305.0),
    ("pink", 305.0, 345.0),
)

_ALIKE = {  # pairs that people and cameras confuse, and how well one fits the word for the other
    frozenset(pair): fit
    for pair, fit in (
        (("white", "gray"), 0.45),
        (("gray", "black"), 0.4),
        (("gray", "blue"), 0.25),
        (("red", "brown"), 0.5),
        (("red", "orange"), 0.5),
        (("red", "pink"), 0.5),
        (("orange", "brown"), 0.6),
        (("orange", "yellow"), 0.5),
        (("brown", "yellow"), 0.3),
        (("brown", "gray"), 0.3),
        (("brown", "black"), 0.25),
        (("yellow", "green"), 0.25),
        (("yellow", "white"), 0.25),
        (("green", "cyan"), 0.5),
        (("green", "black"), 0.2),
        (("cyan", "blue"), 0.6),
        (("blue", "purple"), 0.5),
        (("blue", "black"), 0.2),
        (("purple", "pink"), 0.6),
        (("light", "white"), 1.0),
        (("light", "gray"), 0.5),
        (("light", "yellow"), 0.6),
        (("light", "cyan"), 0.5),
        (("light", "pink"), 0.5),
        (("light", "black"), 0.05),
        (("dark", "black"), 1.0),
        (("dark", "gray"), 0.5),
        (("dark", "brown"), 0.5),
        (("dark", "blue"), 0.5),
        (("dark", "green"), 0.5),
        (("dark", "white"), 0.05),
    )
}


def name_pixels(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Index into :data:`NAMES` of every pixel of uint8[..., 3] RGB, as int64[...].

    By hue where there is enough chroma, by value where not; dark orange and dark yellow are brown.
    """
    rgb = pixels.astype(np.float64) / 255.0
    value, low = rgb.max(axis=-1), rgb.min(axis=-1)
    chroma = value - low
    saturation = chroma / np.maximum(value, 1e-9)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    safe = np.maximum(chroma, 1e-9)
    sector = np.select(
        [value == red, value == green],
        [((green - blue) / safe) % 6.0, (blue - red) / safe + 2.0],
        (red - green) / safe + 4.0,
    )
    hue = sector * 60.0
    names = np.full(value.shape, NAMES.index("gray"))
    for name, first, last in _HUES:
        inside = (hue >= first) & (hue < last) if first < last else (hue >= first) | (hue < last)
        names[inside] = NAMES.index(name)
    warm = (hue >= 5.0) & (hue < 68.0)
    names[warm & ((value < 0.62) | ((saturation < 0.45) & (value < 0.8))) & ~((hue < 15.0) & (saturation > 0.6))] = (
        NAMES.index("brown")
    )
    names[((hue >= 345.0) | (hue < 15.0)) & (saturation < 0.5) & (value > 0.75)] = NAMES.index("pink")
    colorless = (saturation < 0.18) | (chroma < 0.09)
    names[colorless] = NAMES.index("gray")
    names[colorless & (value > 0.78)] = NAMES.index("white")
    names[value < 0.2] = NAMES.index("black")
    return names


def color_of_mask(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> str | None:
    """The colour of most pixels of ``mask`` bool[H, W] in ``image`` uint8[H, W, 3] RGB; None for an empty mask."""
    return _most_common(image[mask])


def color_of_box(image: npt.NDArray[np.uint8], box: Box) -> str | None:
    """The colour of most pixels in the middle of a box (60 % of each side); None for an empty one."""
    height, width = image.shape[:2]
    core = box.expand(0.6).clip(width, height)
    columns = slice(int(core.x0), max(int(np.ceil(core.x1)), int(core.x0)))
    rows = slice(int(core.y0), max(int(np.ceil(core.y1)), int(core.y0)))
    return _most_common(image[rows, columns].reshape(-1, 3))


def _most_common(pixels: npt.NDArray[np.uint8]) -> str | None:
    if not len(pixels):
        return None
    return NAMES[int(np.bincount(name_pixels(pixels), minlength=len(NAMES)).argmax())]


def similarity(word: str, color: str | None) -> float:
    """How well a colour word fits an object of ``color``, in [0.05, 1]; 1 if the colour is not known."""
    if color is None or word == color:
        return 1.0
    return _ALIKE.get(frozenset((word, color)), 0.2 if word in ("dark", "light") else 0.08)
