"""What an image shows of an object and around it: colours, outline, grass, trees, water, pavement, shadow.

Measured once for an image and its objects (:func:`look_at`, :func:`view_of`), for any number of expressions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools.colors import NAMES, lab, memberships
from dataset_tools.expressions.surfaces import CLASSES, lab_of_pixels, probabilities
from dataset_tools.geometry import Box

__all__ = ["SURFACES", "Look", "Outline", "View", "look_at", "view_of"]

Floats = npt.NDArray[np.float64]
SURFACES = CLASSES
"""What the ground can be; ``land`` is all of it but water, ``open`` what is paved or bare."""
_RULED = SURFACES[:6]
"""What colour and texture tell by rules, too."""
_LEARNT = 0.5
"""What the trained networks say counts that much beside the rules, which see colours that no training image had."""
_CELLS = 64
"""The rules look at the image with at most so many cells per side."""
_SHADES = {"dark": ("black", "gray"), "light": ("white", "gray")}
"""Colour words of a surface -> the names it then goes by, plainly and at least a little."""
_SAMPLES = 48
"""An object is looked at with at most so many samples per side."""


@dataclass(frozen=True)
class Outline:
    """The shape of a mask.

    Attributes:
        angle: of its longer axis, in radians in [0, pi), 0 along the image's rows, growing clockwise.
        elongation: longer side over shorter side of the tightest rotated box, at least 1.
        fill: share of that box that the mask covers.
        solidity: share of its convex hull that the mask covers.
        corners: share that the mask covers of each corner ninth of that box, going around; empty if not measured.
        sides: the same of the ninths between them, the first between the first two corners.
    """

    angle: float
    elongation: float
    fill: float
    solidity: float
    corners: tuple[float, ...] = ()
    sides: tuple[float, ...] = ()

    def likeness(self, letter: str) -> float:
        """How much it looks like an ``l``, ``t`` or ``u``, turned or mirrored, in [0, 1]."""
        if not self.corners:
            return 0.0
        corner = [float(_sigmoid(np.array((share - 0.22) / 0.07))) for share in self.corners]
        side = [float(_sigmoid(np.array((share - 0.22) / 0.07))) for share in self.sides]
        turns = range(4)
        if letter == "l":  # one corner is empty
            return max((1 - corner[i]) * min(corner[i - 1], corner[i - 2], corner[i - 3]) for i in turns)
        if letter == "t":  # two corners of a side are empty, but not the side between them
            return max(
                (1 - corner[i]) * (1 - corner[(i + 1) % 4]) * side[i] * min(corner[i - 1], corner[i - 2]) for i in turns
            )
        return max((1 - side[i]) * min(corner) for i in turns)


@dataclass(frozen=True)
class Look:
    """What is seen of one object.

    Attributes:
        palette: share of its pixels that go by each of ``colors.NAMES``.
        mean: CIELAB (L in 0..100, a, b), the mean of its pixels.
        outline: None where only the box is known.
        tinge: how much its pixels belong to each of ``colors.NAMES`` on average; empty if that was not measured.
    """

    palette: tuple[float, ...]
    mean: tuple[float, float, float]
    outline: Outline | None = None
    tinge: tuple[float, ...] = ()

    @property
    def lightness(self) -> float:
        """Mean lightness in [0, 1]."""
        return self.mean[0] / 100.0

    def share(self, color: str) -> float:
        """Share of the object that has a colour, in [0, 1]; of ``dark`` and ``light`` a degree."""
        if color == "dark":
            return float(_sigmoid(np.array((0.42 - self.lightness) / 0.08)))
        if color == "light":
            return float(_sigmoid(np.array((self.lightness - 0.6) / 0.08)))
        return self.palette[NAMES.index(color)]

    def degree(self, color: str) -> float:
        """How much of a colour there is in it on average, in [0, 1]: a reddish brown has some of red and of brown."""
        return self.tinge[NAMES.index(color)] if self.tinge and color in NAMES else self.share(color)


@dataclass(frozen=True)
class View:
    """The whole image in cells.

    Attributes:
        surfaces: float64[9, h, w], probability of each of :data:`SURFACES`.
        colors: float64[12, h, w], belonging to each of ``colors.NAMES``.
        scale: (cells per pixel in x, in y).
    """

    surfaces: Floats = field(repr=False)
    colors: Floats = field(repr=False)
    scale: tuple[float, float] = (1.0, 1.0)

    def layer(self, surface: str | None, color: str | None) -> Floats:
        """float64[h, w]: how much each cell is of a surface and a colour, either of which may be None."""
        found = np.ones(self.surfaces.shape[1:])
        if surface == "land":
            covered = self.surfaces[SURFACES.index("water")] + self.surfaces[SURFACES.index("object")]
            found = np.maximum(1.0 - covered, 0.0)  # where rules see water and the networks a ship it may be over 1
        elif surface == "open":
            found = np.minimum(self.surfaces[SURFACES.index("paved")] + self.surfaces[SURFACES.index("bare")], 1.0)
        elif surface is not None:
            found = self.surfaces[SURFACES.index(surface)]
        if surface == "roof" and color in NAMES:  # of a colour that is said less need look like a roof
            found = np.minimum(0.75 + 0.5 * found, 1.0)
        if color in _SHADES:
            plain, faint = (self.colors[NAMES.index(name)] for name in _SHADES[color])
            found = found * np.minimum(plain + 0.5 * faint, 1.0)
        elif color in NAMES:
            found = found * self.colors[NAMES.index(color)]
        return found


def look_at(image: npt.NDArray[np.uint8], box: Box, mask: npt.NDArray[np.bool_] | None = None) -> Look | None:
    """The look of the object in ``box`` of ``image`` uint8[H, W, 3] RGB; None if nothing of it is in the image.

    ``mask`` bool[H, W] is the object where it is known; else the middle of the box stands for it.
    """
    height, width = image.shape[:2]
    inner = (box if mask is not None else box.expand(0.8)).clip(width, height)
    rows = _samples(inner.y0, inner.y1, height)
    columns = _samples(inner.x0, inner.x1, width)
    if not len(rows) or not len(columns):
        return None
    pixels = image[np.ix_(rows, columns)]
    chosen: npt.NDArray[np.uint8] = pixels.reshape(-1, 3)
    outline = None
    if mask is not None:
        within = mask[np.ix_(rows, columns)]
        if within.any():
            chosen = pixels[within]
        outline = _outline(mask, inner)
    belonging = memberships(chosen)
    palette = np.bincount(belonging.argmax(axis=-1), minlength=len(NAMES)) / len(belonging)
    light, a, b = (float(v) for v in lab(chosen).mean(axis=0))
    tinge = tuple(float(v) for v in belonging.mean(axis=0))
    return Look(tuple(float(v) for v in palette), (light, a, b), outline, tinge)


def _samples(low: float, high: float, limit: int) -> npt.NDArray[np.int64]:
    first, last = max(int(low), 0), min(int(np.ceil(high)), limit)
    step = max(1, (last - first) // _SAMPLES)
    return np.arange(first, last, step)


def _outline(mask: npt.NDArray[np.bool_], box: Box) -> Outline | None:
    part = mask[int(box.y0) : int(np.ceil(box.y1)), int(box.x0) : int(np.ceil(box.x1))].astype(np.uint8)
    points = cv2.findNonZero(part)
    if points is None or len(points) < 6:
        return None
    area = float(len(points))
    hull = max(cv2.contourArea(cv2.convexHull(points)), area * 0.5)
    _, (first, second), degrees = cv2.minAreaRect(points)
    longer, shorter = max(first, second) + 1, min(first, second) + 1
    angle = np.deg2rad(degrees if first >= second else degrees + 90) % np.pi
    corners, sides = _ninths(part, cv2.minAreaRect(points))
    return Outline(
        float(angle), longer / shorter, min(area / (longer * shorter), 1.0), min(area / hull, 1.0), corners, sides
    )


def _ninths(part: npt.NDArray[np.uint8], rectangle: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shares of the corners and sides (see :class:`Outline`) of a rotated rectangle of OpenCV's."""
    corners = cv2.boxPoints(rectangle)
    square = np.array([[0, 0], [29, 0], [29, 29]], np.float32)
    turned = cv2.warpAffine(part, cv2.getAffineTransform(corners[:3].astype(np.float32), square), (30, 30))
    shares = turned.reshape(3, 10, 3, 10).mean(axis=(1, 3))
    around = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    values = [float(shares[at]) for at in around]
    return tuple(values[0::2]), tuple(values[1::2])


def view_of(image: npt.NDArray[np.uint8]) -> View:
    """The view of ``image`` uint8[H, W, 3] RGB."""
    height, width = image.shape[:2]
    found = probabilities(image).astype(np.float64)
    down, across = found.shape[1:]
    ruled = np.moveaxis(_by_rules(image), 0, -1).astype(np.float32)
    finely: Any = cv2.resize(ruled, (across, down), interpolation=cv2.INTER_LINEAR)
    for index, name in enumerate(_RULED):
        learnt = 0.0 if name == "shadow" else _LEARNT  # too few points of it were labelled
        found[index] = learnt * found[index] + (1.0 - learnt) * finely[..., index]
    coarse = (max(1, across // 2), max(1, down // 2))  # a colour of a cell costs more than its surface
    colors = memberships(cv2.resize(image, coarse, interpolation=cv2.INTER_AREA)).astype(np.float32)
    finer: Any = cv2.resize(colors, (across, down), interpolation=cv2.INTER_LINEAR)
    named = np.ascontiguousarray(np.moveaxis(finer, -1, 0).astype(np.float64))
    return View(found, named, (across / width, down / height))


def _by_rules(image: npt.NDArray[np.uint8]) -> Floats:
    """float64[6, h, w], how much of each of :data:`_RULED` coarse cells look by plain colour and texture."""
    height, width = image.shape[:2]
    across, down = max(1, min(_CELLS, width)), max(1, min(_CELLS, height))
    fine = cv2.resize(image, (across * 4, down * 4), interpolation=cv2.INTER_AREA)
    values = lab_of_pixels(np.asarray(fine, np.uint8))
    light = values[..., 0]
    small: Any = cv2.resize(values, (across, down), interpolation=cv2.INTER_AREA)
    squares = cv2.resize(light * light, (across, down), interpolation=cv2.INTER_AREA)
    texture = np.sqrt(np.maximum(squares - small[..., 0] ** 2, 0.0)).astype(np.float64)
    return _surfaces(small.astype(np.float64), cv2.blur(texture, (3, 3)))


def _surfaces(values: Floats, texture: Floats) -> Floats:
    """float64[6, h, w] from CIELAB [h, w, 3] and the spread of lightness within a cell."""
    light, a, b = np.moveaxis(values, -1, 0)
    chroma = np.hypot(a, b)
    rough = _sigmoid((texture - 6.0) / 2.0)
    green = _sigmoid((-a - 3.0) / 2.0) * _sigmoid((b - 1.0) / 2.0)
    smooth = 1.0 - _sigmoid((texture - 3.5) / 1.2)
    found = np.stack(
        [
            green * (1 - rough) * _sigmoid((light - 32) / 5),
            green * np.maximum(rough, _sigmoid((34 - light) / 5)),
            smooth * np.maximum(_sigmoid((-b - 5) / 2.5), 0.8 * _sigmoid((38 - light) / 6) * _sigmoid((-a - 1) / 2)),
            _sigmoid((9 - chroma) / 2.5) * _sigmoid((light - 30) / 5),
            _sigmoid((b - 8) / 3) * _sigmoid((a + 1) / 2) * _sigmoid((light - 35) / 6),
            _sigmoid((22 - light) / 4) * _sigmoid((16 - chroma) / 4),
        ]
    )
    return np.asarray(found / np.maximum(found.sum(axis=0), 0.35), np.float64)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -40.0, 40.0))), np.float64)
