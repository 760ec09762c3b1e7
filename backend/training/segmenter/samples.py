"""Training samples of the compact segmenter: windows around objects, strongly augmented.

Geometry is drawn first (rotation, flips, stretch), then the box of the transformed object is jittered and the window
follows from that box by the rule used at inference, so that training sees what stage 1 really hands over.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from backend.pipeline.segmentation.windows import MINIMUM_WINDOW, WINDOW_FACTOR, window_for
from backend.training.batches import in_processes
from dataset_tools.geometry import Box
from dataset_tools.labelled import LabelledImage

__all__ = [
    "PHOTOGRAPHS",
    "SHAPES",
    "SYNTHETIC",
    "TrainingObject",
    "TrainingScene",
    "WindowSample",
    "augment_colors",
    "draw_sample",
    "plain_sample",
    "scene_of",
    "training_scenes",
]

PADDING = (124, 116, 104)
"""What lies outside an image: the mean pixel, which the model's normalisation maps to about 0."""


PHOTOGRAPHS = "photographs"
"""Origin of photographs of no set with a share of its own."""
SYNTHETIC = "synthetic"
"""Origin of scenes of ``dataset_tools.synthetic``."""
SHAPES = "shapes"
"""Origin of photographs with shapes pasted in (``segmenter.shapes``)."""


@dataclass(frozen=True, eq=False)
class TrainingObject:
    """One object of a scene.

    Attributes:
        category: canonical name.
        mask: uint8[h, w], 0 or 255, cropped to the object's box.
        offset: (x, y) of the crop in the image.
        outline: float32[N, 2], corners of the object's outline in pixels of the image, for its transformed box.
        area: pixels of the mask.
    """

    category: str
    mask: npt.NDArray[np.uint8]
    offset: tuple[int, int]
    outline: npt.NDArray[np.float32]
    area: int

    @property
    def box(self) -> Box:
        """The tightest box in pixels of the image."""
        (x, y), (h, w) = self.offset, self.mask.shape
        return Box(float(x), float(y), float(x + w), float(y + h))


@dataclass(frozen=True, eq=False)
class TrainingScene:
    """An image uint8[H, W, 3] RGB with its objects.

    ``origin`` is what it gets its share of the draws by: one of the above, or the name of its dataset; ``pyramid``
    holds it at 1, 1/2, 1/4, ... of its size.
    """

    name: str
    image: npt.NDArray[np.uint8]
    objects: tuple[TrainingObject, ...]
    origin: str = PHOTOGRAPHS
    pyramid: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    def level(self, number: int) -> npt.NDArray[np.uint8]:
        """The image halved ``number`` times, made on first use."""
        if not self.pyramid:
            self.pyramid.append(self.image)
        while len(self.pyramid) <= number and min(self.pyramid[-1].shape[:2]) > 32:
            height, width = self.pyramid[-1].shape[:2]
            self.pyramid.append(
                cv2.resize(self.pyramid[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA).astype(np.uint8)
            )
        return self.pyramid[min(number, len(self.pyramid) - 1)]


@dataclass(frozen=True, eq=False)
class WindowSample:
    """A window with one object; coordinates are pixels of the window.

    Attributes:
        image: uint8[S, S, 3] RGB.
        mask: uint8[S, S], 0 or 1.
        box: float32[4], the jittered box (x0, y0, x1, y1).
        full_area: the whole object's area in window pixels, parts outside the window included.
        category: canonical name.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    box: npt.NDArray[np.float32]
    full_area: float
    category: str


def scene_of(
    name: str,
    image: npt.NDArray[np.uint8],
    masks: Iterable[tuple[str, npt.NDArray[np.bool_]]],
    origin: str = PHOTOGRAPHS,
) -> TrainingScene:
    """A scene from an image uint8[H, W, 3] RGB and its (category, mask bool[H, W]); empty masks are left out."""
    objects = []
    for category, mask in masks:
        if not mask.any():
            continue
        x0, y0, x1, y1 = (int(v) for v in Box.of_mask(mask))
        crop = np.ascontiguousarray(mask[y0:y1, x0:x1]).astype(np.uint8) * 255
        contours, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x0, y0))
        corners = np.concatenate(contours)[:, 0].astype(np.float32)
        # A pixel is a unit square: all four of its corners belong to the outline.
        outline = np.concatenate([corners + shift for shift in ((0, 0), (1, 0), (0, 1), (1, 1))]).astype(np.float32)
        outline = cv2.convexHull(outline)[:, 0]
        objects.append(TrainingObject(category, crop, (x0, y0), outline, int(mask.sum())))
    return TrainingScene(name, image, tuple(objects), origin)


def training_scenes(
    images: Iterable[LabelledImage],
    exclude_categories: Collection[str] = (),
    workers: int = 0,
    origin: str = PHOTOGRAPHS,
) -> list[TrainingScene]:
    """``images`` with their masks, without excluded categories; images with nothing left are left out.

    ``workers`` processes decode; 0: this one.

    Raises:
        ImageError: an image cannot be read, or has another size than its labels.
    """
    decode = partial(_decoded, exclude_categories=exclude_categories, origin=origin)
    return [scene for scene in in_processes(decode, list(images), workers) if scene.objects]


def _decoded(image: LabelledImage, *, exclude_categories: Collection[str], origin: str) -> TrainingScene:
    masks = ((item.category, item.mask()) for item in image.objects if item.category not in exclude_categories)
    return scene_of(image.name, image.pixels(), masks, origin)


def draw_sample(
    scene: TrainingScene,
    target: TrainingObject,
    size: int,
    rng: np.random.Generator,
    *,
    jitter: float,
    free_window: bool,
) -> WindowSample:
    """One augmented window of ``size`` pixels around ``target``.

    Args:
        scene: where the object is.
        target: one of the scene's objects.
        size: side of the window in pixels of the network's input.
        rng: all randomness.
        jitter: largest shift of a box side, as a share of the box's extent; some boxes are shifted less.
        free_window: draw the window's side freely (what a lone click leads to) instead of from the box.
    """
    linear = _random_linear(rng)
    outline = target.outline @ linear.T
    low, high = outline.min(axis=0), outline.max(axis=0)
    extent = np.maximum(high - low, 1.0)
    jitter *= rng.random()
    jittered = Box(
        *(low + rng.uniform(-jitter, jitter, 2) * extent), *(high + rng.uniform(-jitter, jitter, 2) * extent)
    )
    if free_window:
        inside = np.array(jittered.center) + rng.uniform(-0.25, 0.25, 2) * extent
        side, center = float(extent.max() * math.exp(rng.uniform(math.log(0.8), math.log(4.5)))), inside
    else:
        factor = WINDOW_FACTOR if rng.random() < 0.7 else rng.uniform(1.1, 2.3)
        side = max(jittered.width, jittered.height) * factor
        center = np.array(jittered.center) + (rng.uniform(-0.06, 0.06, 2) * side if rng.random() < 0.3 else 0)
    image, mask, corners, zoom = _render(scene, target, jittered, linear, max(side, MINIMUM_WINDOW), center, size)
    return WindowSample(augment_colors(image, rng), mask, corners, target.area * zoom**2, target.category)


def plain_sample(scene: TrainingScene, target: TrainingObject, box: Box, size: int) -> WindowSample:
    """The window of ``size`` pixels that inference takes for ``box``, not augmented."""
    height, width = scene.image.shape[:2]
    window = window_for(box, (height, width))
    image, mask, corners, zoom = _render(scene, target, box, np.eye(2), window.width, np.array(window.center), size)
    return WindowSample(image, mask, corners, target.area * zoom**2, target.category)


def _render(
    scene: TrainingScene,
    target: TrainingObject,
    box: Box,
    linear: npt.NDArray[np.float64],
    side: float,
    center: npt.NDArray[np.float64],
    size: int,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float32], float]:
    """Image, mask, box in the window and magnification; box, side and center are in the frame after ``linear``."""
    scale = size / side
    shift = size / 2 - center * scale
    matrix = np.column_stack([linear * scale, shift])
    zoom = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    level = max(0, math.floor(math.log2(1 / zoom) + 0.3)) if zoom < 1 else 0
    source = scene.level(level)
    ratio = np.array([scene.image.shape[1] / source.shape[1], scene.image.shape[0] / source.shape[0]])
    image = cv2.warpAffine(
        source, _cv(matrix, ratio, (0, 0)), (size, size), flags=cv2.INTER_LINEAR, borderValue=PADDING
    )
    soft = cv2.warpAffine(target.mask, _cv(matrix, np.ones(2), target.offset), (size, size), flags=cv2.INTER_LINEAR)
    corners = np.array(box, np.float64).reshape(2, 2) * scale + shift
    return image.astype(np.uint8), (soft > 127).astype(np.uint8), corners.reshape(4).astype(np.float32), zoom


def _random_linear(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random 2 x 2 map: quarter turns, flips, mostly also a free rotation, stretch and shear."""
    angle = math.pi / 2 * rng.integers(4)
    if rng.random() < 0.6:
        angle += rng.uniform(-math.pi / 4, math.pi / 4)
    cosine, sine = math.cos(angle), math.sin(angle)
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    stretch = np.diag(np.exp(rng.normal(0, 0.1, 2)) * (rng.choice([-1.0, 1.0]), 1.0))
    shear = np.array([[1.0, rng.normal(0, 0.05)], [0.0, 1.0]])
    return np.asarray(rotation @ shear @ stretch)


def _cv(
    matrix: npt.NDArray[np.float64], ratio: npt.NDArray[np.float64], offset: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """OpenCV's form of an affine map of image pixels, for a source that is scaled down by ``ratio`` and cropped.

    OpenCV puts coordinate 0 at the middle of the first pixel, we at its corner.
    """
    linear = matrix[:, :2] * ratio
    shift = matrix[:, 2] + matrix[:, :2] @ np.array(offset, np.float64) + linear @ np.full(2, 0.5) - 0.5
    return np.column_stack([linear, shift])


def augment_colors(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """``image`` uint8[S, S, 3] with random colours, colour-infrared mixes, blur, noise, lost resolution and JPEG."""
    mix = np.eye(3)
    strength = 1.0 if rng.random() < 0.5 else 0.4
    kind = rng.random() / strength
    if kind < 0.12:  # colour-infrared: near infrared (bright on plants, like green minus blue), red, green
        infrared = np.array([0.2, rng.uniform(1.0, 1.8), rng.uniform(-0.9, -0.3)])
        mix = np.array([infrared, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    elif kind < 0.17:
        mix = mix[rng.permutation(3)]
    luma = np.array([0.299, 0.587, 0.114])
    saturation = 0.0 if rng.random() < 0.07 * strength else 1 + strength * rng.uniform(-0.5, 0.5)
    mix = saturation * mix + (1 - saturation) * np.ones((3, 1)) * luma
    image = cv2.transform(image, mix).astype(np.uint8)

    levels = np.arange(256) / 255.0
    gain = 1 + strength * (rng.uniform(-0.3, 0.3) + rng.uniform(-0.1, 0.1, 3))
    contrast, gamma = 1 + strength * rng.uniform(-0.3, 0.35), math.exp(strength * rng.uniform(-0.4, 0.4))
    table = ((levels[:, None] ** gamma - 0.5) * contrast + 0.5) * gain * 255
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[:, None, :]).astype(np.uint8)

    size = image.shape[0]
    if rng.random() < 0.15 * strength:
        small = max(16, round(size * rng.uniform(0.25, 0.7)))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size)).astype(
            np.uint8
        )
    elif rng.random() < 0.12 * strength:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.6)).astype(np.uint8)
    if rng.random() < 0.15 * strength:
        noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(2, 14)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.15 * strength:
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])
        image = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return image
