"""Colour names of objects in RGB images, as annotators use them. Pure numpy.

A colour belongs to each name to a degree: the nearer to one of the name's prototypes in CIELAB, the more. So "the white
tank" finds the whitest of several greyish ones, and "red" and "brown" roofs are told apart by comparison.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["DIRECTIONS", "NAMES", "Rgb", "color_of_mask", "lab", "memberships", "name_of", "similarity"]

Rgb = tuple[int, int, int]

_PROTOTYPES: dict[str, tuple[Rgb, ...]] = {
    "white": ((245, 245, 245), (225, 228, 232), (235, 230, 220)),
    "gray": ((128, 128, 128), (95, 98, 102), (160, 160, 158), (140, 135, 130)),
    "black": ((15, 15, 15), (38, 40, 44)),
    "red": ((200, 35, 35), (150, 30, 30), (165, 70, 58), (225, 80, 70)),
    "orange": ((235, 130, 35), (215, 120, 60), (250, 165, 70)),
    "brown": ((120, 80, 45), (90, 62, 42), (165, 135, 100), (140, 105, 80)),
    "yellow": ((235, 215, 60), (250, 230, 120), (205, 180, 50)),
    "green": ((60, 140, 60), (45, 85, 48), (110, 150, 80), (120, 180, 110), (70, 110, 75)),
    "cyan": ((60, 200, 205), (130, 215, 215), (40, 150, 155)),
    "blue": ((40, 80, 190), (75, 115, 165), (35, 50, 110), (110, 160, 220)),
    "purple": ((120, 50, 160), (150, 110, 190), (85, 50, 100)),
    "pink": ((240, 140, 185), (235, 180, 195), (220, 90, 150)),
}
NAMES = tuple(_PROTOTYPES)
"""The names a colour can have; expressions also say ``dark`` and ``light``, which go by lightness."""

_WIDTH = 16.0
"""CIELAB distance over which belonging to a name fades."""
_SAMPLES = 4096


def lab(rgb: npt.NDArray[np.floating] | npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """CIELAB (D65) of sRGB [..., 3] in 0..255."""
    scaled = np.asarray(rgb, np.float64) / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


_PROTOTYPE_LAB = lab(np.array([rgb for group in _PROTOTYPES.values() for rgb in group]))
_PROTOTYPE_NAME = np.array([index for index, group in enumerate(_PROTOTYPES.values()) for _ in group])


def _direction(name: str) -> tuple[float, float, float]:
    """Unit vector in CIELAB from gray to a chromatic name."""
    hue = lab(np.array(_PROTOTYPES[name])).mean(axis=0) * np.array([0.0, 1.0, 1.0])
    light, a, b = (float(v) for v in hue / max(float(np.hypot(*hue[1:])), 1e-9))
    return light, a, b


DIRECTIONS: dict[str, tuple[float, float, float]] = {
    **{name: _direction(name) for name in NAMES if name not in ("white", "gray", "black")},
    **dict.fromkeys(("white", "light"), (0.5, 0.0, 0.0)),
    **dict.fromkeys(("black", "dark"), (-0.5, 0.0, 0.0)),
}
"""Colour word -> the way in CIELAB in which one of several objects of about one colour is nearer to it."""


def memberships(rgb: npt.NDArray[np.floating] | npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """How much each colour of [..., 3] sRGB in 0..255 belongs to each of :data:`NAMES`, float64[..., 12], sum 1."""
    offset = lab(rgb)[..., None, :] - _PROTOTYPE_LAB
    distance = np.sqrt((offset**2 * np.array([0.6, 1.0, 1.0])).sum(axis=-1))
    nearest = np.stack([distance[..., n == _PROTOTYPE_NAME].min(axis=-1) for n in range(len(NAMES))], axis=-1)
    weight = np.exp(-(nearest - nearest.min(axis=-1, keepdims=True)) / (_WIDTH / 2.0))
    return np.asarray(weight / weight.sum(axis=-1, keepdims=True), np.float64)


def name_of(rgb: Rgb) -> str:
    """The name a colour goes by most."""
    return NAMES[int(memberships(np.array(rgb)).argmax())]


def color_of_mask(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> Rgb | None:
    """The colour of an object: the median of the pixels that go by the most common name among all of ``mask``.

    Args:
        image: uint8[H, W, 3] RGB.
        mask: bool[H, W].

    Returns:
        None for an empty mask. Stripes, shadows and glints do not mix into the colour.
    """
    return _dominant(image[mask])


def _dominant(pixels: npt.NDArray[np.uint8]) -> Rgb | None:
    if not len(pixels):
        return None
    pixels = pixels[:: max(1, len(pixels) // _SAMPLES)]
    names = memberships(pixels).argmax(axis=-1)
    most = np.bincount(names, minlength=len(NAMES)).argmax()
    red, green, blue = np.median(pixels[names == most], axis=0)
    return int(red), int(green), int(blue)


def similarity(word: str, color: Rgb | str | None) -> float:
    """How well a colour word fits an object, in [0.05, 1].

    Args:
        word: one of :data:`NAMES`, ``dark`` or ``light``.
        color: the object's colour, or its name; None if not known, which fits every word.
    """
    if color is None or word == color:
        return 1.0
    if isinstance(color, str):
        if color in ("dark", "light"):
            return 0.5
        return max(similarity(word, rgb) for rgb in _PROTOTYPES[color])
    if word in ("dark", "light"):
        lightness = float(lab(np.array(color))[0]) / 100.0
        fit = 1.0 / (1.0 + np.exp((lightness - 0.5) / (0.1 if word == "dark" else -0.1)))
    else:
        belongs = memberships(np.array(color))
        fit = float(np.sqrt(belongs[NAMES.index(word)]))
    return 0.05 + 0.95 * float(fit)
