"""Training samples of the compact grounder: crops, rotations, scales, colours, mosaics and pasted objects.

Boxes are recomputed from the transformed outlines, so that a rotated object keeps a tight box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from backend.pipeline.types import Image
from backend.training.grounder.colors import shift_colors
from backend.training.grounder.data import OutlinedObject, TrainingImage
from dataset_tools.categories import KINDS

SEMANTIC_STRIDE = 4
"""Masks and weight maps are drawn at a quarter of the sample's side."""
UNLABELLED = 255
"""Value of ``DetectorSample.semantic`` where there is no object."""
SHAPELESS = 254
"""Value of ``DetectorSample.semantic`` in a box whose object has no outline: what is object there is not known."""


@dataclass(frozen=True)
class AugmentationConfig:
    """What a sample may look like; shares are probabilities.

    Attributes:
        size: side of a sample in pixels.
        reference_side: scale 1 shows an image with its long side at this many pixels, as inference does.
        scale: smallest and largest object scale relative to that, for samples made of one image.
        mosaic_scale: the same for each of the four images of a mosaic.
        free_rotation: share of samples turned by any angle; all others by a multiple of 90 degrees.
        mosaic: share of samples put together from four images.
        paste: share of samples that get objects of other images.
        pasted: largest number of objects pasted.
        around_object: share of crops placed around an object.
        rarity: images are drawn with the weight (share of images with their rarest category) ** -rarity.
        visible: an object cut to less than this share of its box is neither object nor background.
    """

    size: int = 384
    reference_side: int = 640
    scale: tuple[float, float] = (0.55, 2.2)
    mosaic_scale: tuple[float, float] = (0.35, 1.4)
    free_rotation: float = 0.35
    mosaic: float = 0.25
    paste: float = 0.35
    pasted: int = 4
    around_object: float = 0.7
    rarity: float = 0.5
    visible: float = 0.35

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> AugmentationConfig:
        """The config in a mapping read from YAML, where tuples are lists."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


@dataclass(frozen=True, eq=False)
class DetectorSample:
    """One training sample of side S.

    Attributes:
        image: uint8[S, S, 3] RGB.
        boxes: float32[N, 4], (x0, y0, x1, y1) in pixels, clipped to the sample.
        labels: int64[N], index of each box's category.
        kinds: int64[N], index of each box's kind; -1 where it has none or it is not known.
        semantic: uint8[S/4, S/4], index of the category at each position, ``SHAPELESS`` or ``UNLABELLED`` elsewhere.
        background: float32[C, S/4, S/4], weight of "no object of this category here".
    """

    image: Image
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]
    semantic: npt.NDArray[np.uint8]
    background: npt.NDArray[np.float32]


class _Canvas:
    """A sample while it is being drawn."""

    def __init__(self, size: int, categories: Sequence[str], visible: float) -> None:
        quarter = size // SEMANTIC_STRIDE
        self.visible = visible
        self.index = {category: number for number, category in enumerate(categories)}
        self.kinds_of: dict[str, list[int]] = {}
        self.own = np.arange(len(categories))
        for kind, of in KINDS.items():
            if kind in self.index and of in self.index:
                self.kinds_of.setdefault(of, []).append(self.index[kind])
                self.own[self.index[kind]] = self.index[of]
        self.image = np.zeros((size, size, 3), np.uint8)
        self.semantic = np.full((quarter, quarter), UNLABELLED, np.uint8)
        self.background = np.ones((len(categories), quarter, quarter), np.float32)
        self.boxes: list[tuple[float, float, float, float]] = []
        self.labels: list[int] = []
        self.kinds: list[int] = []

    def add(
        self,
        item: OutlinedObject,
        matrix: npt.NDArray[np.float64],
        area: tuple[int, int, int, int],
        shapeless: bool = False,
    ) -> None:
        """Register an object whose outlines ``matrix`` float64[2, 3] maps to the canvas, seen through ``area``."""
        label = self.index[item.category]
        kind = self.index.get(item.kind, -1) if item.kind is not None else -1
        whole = [points @ matrix[:, :2].T + matrix[:, 2] for points in item.outlines]
        parts = [part for part in (clip_polygon(points, area) for points in whole) if len(part) >= 3]
        if not parts:
            return
        seen, full = _extent(parts), _extent(whole)
        share = _area(seen) / max(_area(full), 1e-6)
        stride = SEMANTIC_STRIDE
        quarter = [np.round((part - stride / 2) / stride * 16).astype(np.int32) for part in parts]
        cv2.fillPoly(self.semantic, quarter, SHAPELESS if shapeless else label, shift=4)
        dropped = min(seen[2] - seen[0], seen[3] - seen[1]) < 3 or share < self.visible
        silent = [label] if dropped else []
        if dropped or kind < 0:
            silent += self.kinds_of.get(item.category, [])
        if silent:
            x0, y0 = int(seen[0] // stride), int(seen[1] // stride)
            x1, y1 = math.ceil(seen[2] / stride), math.ceil(seen[3] / stride)
            self.background[silent, y0:y1, x0:x1] = 0
        if not dropped:
            self.boxes.append(seen)
            self.labels.append(label)
            self.kinds.append(kind)

    def sample(self, image: Image) -> DetectorSample:
        # An outlined object is nothing else: there, even labels that are incomplete elsewhere say something.
        own = self.semantic == self.own[:, None, None]
        other = (self.semantic < SHAPELESS) & ~own
        return DetectorSample(
            image,
            np.array(self.boxes, np.float32).reshape(-1, 4),
            np.array(self.labels, np.int64),
            np.array(self.kinds, np.int64),
            self.semantic,
            np.where(other, np.maximum(self.background, 0.5), self.background).astype(np.float32),
        )


class SampleMaker:
    """Draws training samples from ``images``; objects of categories that are not in ``categories`` are left out."""

    def __init__(self, images: Sequence[TrainingImage], categories: Sequence[str], config: AugmentationConfig) -> None:
        self.images = images
        self.categories = tuple(categories)
        self.config = config
        self._weights = _sampling_weights(images, categories, config.rarity)
        self._donors = {
            category: [
                (image, item)
                for image in images
                if not image.boxes_only
                for item in image.objects
                if item.category == category and len(item.outlines) == 1
            ]
            for category in categories
        }
        self._donors = {category: donors for category, donors in self._donors.items() if donors}

    def draw(self, rng: np.random.Generator) -> DetectorSample:
        """One sample; the same generator state gives the same sample."""
        config = self.config
        canvas = _Canvas(config.size, self.categories, config.visible)
        size = config.size
        scale = config.scale
        if rng.random() < config.mosaic:
            scale = config.mosaic_scale
            x, y = (int(size * rng.uniform(0.3, 0.7)) for _ in range(2))
            areas = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
        else:
            areas = [(0, 0, size, size)]
        for area in areas:
            source = self.images[rng.choice(len(self.images), p=self._weights)]
            self._place(canvas, source, area, _log_uniform(scale, rng), rng)
        if self._donors and rng.random() < config.paste:
            for _ in range(int(rng.integers(1, config.pasted + 1))):
                self._paste(canvas, rng)
        return canvas.sample(shift_colors(canvas.image, rng))

    def _place(
        self,
        canvas: _Canvas,
        source: TrainingImage,
        area: tuple[int, int, int, int],
        scale: float,
        rng: np.random.Generator,
    ) -> None:
        """Fill ``area`` (x0, y0, x1, y1) of the canvas with a view of ``source`` at ``scale``."""
        config = self.config
        height, width = source.image.shape[:2]
        scale *= config.reference_side / max(height, width)
        size = np.array([width, height], dtype=float)
        center = rng.uniform(0, size)
        if source.objects and rng.random() < config.around_object:
            box = source.objects[rng.integers(len(source.objects))].box
            spread = config.size * 0.35 / scale
            center = np.array(box.center) + rng.uniform(-spread, spread, 2)
        if rng.random() < 0.93:  # keep the view inside the image as far as it fits
            half = np.array([area[2] - area[0], area[3] - area[1]]) / 2 / scale
            center = np.where(half * 2 < size, np.clip(center, half, size - half), size / 2)
        quarter_turns = int(rng.integers(4))
        turned = rng.random() < config.free_rotation and not source.boxes_only
        free = rng.uniform(-45, 45) if turned else 0.0
        angle = math.radians(90 * quarter_turns + free)
        flip = -1.0 if rng.random() < 0.5 else 1.0
        linear = scale * np.array(
            [[math.cos(angle) * flip, -math.sin(angle)], [math.sin(angle) * flip, math.cos(angle)]]
        )
        target = np.array([(area[0] + area[2]) / 2, (area[1] + area[3]) / 2])
        matrix = np.concatenate([linear, (target - linear @ center)[:, None]], axis=1)
        shift = matrix.copy()
        shift[:, 2] -= area[:2]
        image, shift = _reduced(source, shift, scale)
        fill = tuple(int(v) for v in rng.integers(0, 256, 3)) if rng.random() < 0.3 else (102, 105, 94)
        view = cv2.warpAffine(
            image,
            _pixel_centers(shift),
            (area[2] - area[0], area[3] - area[1]),
            flags=cv2.INTER_LINEAR,
            borderValue=fill,
        )
        canvas.image[area[1] : area[3], area[0] : area[2]] = view
        stride = SEMANTIC_STRIDE
        rows, columns = slice(area[1] // stride, area[3] // stride), slice(area[0] // stride, area[2] // stride)
        for category, weight in source.unlabelled.items():
            if category in canvas.index:
                canvas.background[canvas.index[category], rows, columns] = weight
        circles = source.circles
        centers = circles[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        reach = circles[:, 2] * scale
        near = ((centers + reach[:, None] > area[:2]) & (centers - reach[:, None] < area[2:])).all(axis=1)
        for number in np.flatnonzero(near):
            item = source.objects[number]
            if item.category in canvas.index:
                canvas.add(item, matrix, area, source.boxes_only)

    def _paste(self, canvas: _Canvas, rng: np.random.Generator) -> None:
        """Put an object of another image on a free place of the canvas, its border feathered."""
        config = self.config
        donors = self._donors[list(self._donors)[rng.integers(len(self._donors))]]
        source, item = donors[rng.integers(len(donors))]
        box = item.box
        scale = _log_uniform(config.scale, rng) * config.reference_side / max(source.image.shape[:2])
        scale = min(scale, 0.5 * config.size / max(box.width, box.height))
        angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.7 else math.pi / 2 * int(rng.integers(4))
        flip = -1.0 if rng.random() < 0.5 else 1.0
        linear = scale * np.array(
            [[math.cos(angle) * flip, -math.sin(angle)], [math.sin(angle) * flip, math.cos(angle)]]
        )
        place = rng.uniform(0.05 * config.size, 0.95 * config.size, 2)
        matrix = np.concatenate([linear, (place - linear @ np.array(box.center))[:, None]], axis=1)
        extent = _extent([item.outlines[0] @ linear.T + matrix[:, 2]])
        if extent[2] - extent[0] < 6 or extent[3] - extent[1] < 6:
            return
        for other in canvas.boxes:
            if min(extent[2], other[2]) > max(extent[0], other[0]) and min(extent[3], other[3]) > max(
                extent[1], other[1]
            ):
                return
        margin = 3
        x0, y0 = max(0, int(extent[0]) - margin), max(0, int(extent[1]) - margin)
        x1 = min(config.size, math.ceil(extent[2]) + margin)
        y1 = min(config.size, math.ceil(extent[3]) + margin)
        shift = matrix.copy()
        shift[:, 2] -= (x0, y0)
        image, reduced = _reduced(source, shift, scale)
        patch = cv2.warpAffine(
            image, _pixel_centers(reduced), (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        alpha = np.zeros((y1 - y0, x1 - x0), np.float32)
        points = item.outlines[0] @ shift[:, :2].T + shift[:, 2]
        cv2.fillPoly(alpha, [np.round((points - 0.5) * 16).astype(np.int32)], 1.0, shift=4)
        sigma = float(rng.uniform(0.5, 1.5))
        alpha = cv2.GaussianBlur(alpha, (0, 0), sigma)[..., None]
        target = canvas.image[y0:y1, x0:x1]
        target[:] = (patch * alpha + target * (1 - alpha)).astype(np.uint8)
        canvas.add(item, matrix, (0, 0, config.size, config.size))


def clip_polygon(
    points: npt.NDArray[np.floating[Any]], area: tuple[float, float, float, float]
) -> npt.NDArray[np.floating[Any]]:
    """The part of the polygon float[N, 2] inside ``area`` (x0, y0, x1, y1) (Sutherland and Hodgman)."""
    for axis, limit, sign in ((0, area[0], 1), (1, area[1], 1), (0, area[2], -1), (1, area[3], -1)):
        if not len(points):
            break
        distance = sign * (points[:, axis] - limit)
        if (distance >= 0).all():
            continue
        following = np.roll(points, -1, axis=0)
        next_distance = np.roll(distance, -1)
        kept = []
        for start, end, d0, d1 in zip(points, following, distance, next_distance, strict=True):
            if d0 >= 0:
                kept.append(start)
            if (d0 >= 0) != (d1 >= 0):
                kept.append(start + (end - start) * (d0 / (d0 - d1)))
        points = np.array(kept).reshape(-1, 2)
    return points


def _extent(parts: Sequence[npt.NDArray[np.floating[Any]]]) -> tuple[float, float, float, float]:
    points = np.concatenate(parts)
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x0, y0, x1, y1


def _log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    low, high = np.log(limits)
    return float(np.exp(rng.uniform(low, high)))


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _reduced(
    source: TrainingImage, matrix: npt.NDArray[np.float64], scale: float
) -> tuple[Image, npt.NDArray[np.float64]]:
    """The image, halved once or twice before a strong reduction (bilinear sampling alone would alias), and its map."""
    image = source.image if scale >= 0.55 else source.half if scale >= 0.275 else source.quarter
    matrix = matrix.copy()
    matrix[:, 0] *= source.image.shape[1] / image.shape[1]
    matrix[:, 1] *= source.image.shape[0] / image.shape[0]
    return image, matrix


def _pixel_centers(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same map for OpenCV, whose pixel (0, 0) has its centre, not its corner, at the origin."""
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    return matrix


def _sampling_weights(
    images: Sequence[TrainingImage], categories: Sequence[str], rarity: float
) -> npt.NDArray[np.float64]:
    """Images of rare categories are drawn more often, see ``AugmentationConfig.rarity``."""
    present = [{item.category for item in image.objects} & set(categories) for image in images]
    share = {category: sum(category in names for names in present) / len(images) for category in categories}
    weights = np.array([max((share[name] ** -rarity for name in names), default=1.0) for names in present])
    total: npt.NDArray[np.float64] = weights / weights.sum()
    return total
