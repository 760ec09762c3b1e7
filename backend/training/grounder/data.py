"""Images with outlined objects, decoded once and kept in memory for the compact grounder's training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from backend.pipeline.types import Image
from backend.training.batches import in_processes
from dataset_tools.categories import canonical, kind_of
from dataset_tools.errors import DatasetError
from dataset_tools.geometry import Box
from dataset_tools.labelled import LabelledImage, LabelledObject, read
from dataset_tools.masks import Mask

Outline: TypeAlias = npt.NDArray[np.float32]
"""float32[N, 2]: one contour, (x, y) in pixels of the kept image; its extremes are the object's box."""


@dataclass(frozen=True, eq=False)
class OutlinedObject:
    """One object: its category (canonical name), the outer contours of its parts, and its kind where it is known."""

    category: str
    outlines: tuple[Outline, ...]
    kind: str | None = None

    @cached_property
    def box(self) -> Box:
        """The tightest box around all parts."""
        points = np.concatenate(self.outlines)
        return Box(*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """One decoded image.

    Attributes:
        name: file name, for messages.
        image: uint8[H, W, 3] RGB, its long side at most the size asked for when loading.
        objects: everything that is outlined in it.
        unlabelled: weight in [0, 1] of "no such object here", by category, where the labels are not complete: 0 says
            nothing about the category where it is not outlined. Categories not named have weight 1.
        boxes_only: the outlines are only boxes: they say nothing of shapes, and turned they would be too large.
    """

    name: str
    image: Image
    objects: tuple[OutlinedObject, ...]
    unlabelled: dict[str, float]
    boxes_only: bool = False

    def knows(self, category: str) -> bool:
        """Whether the labels say where there is none of ``category`` (or kind)."""
        return self.unlabelled.get(category, 1.0) > 0

    def boxes_of(self, category: str) -> list[Box]:
        """The boxes of the objects of ``category`` (or kind)."""
        return [item.box for item in self.objects if category in (item.category, item.kind)]

    @cached_property
    def circles(self) -> npt.NDArray[np.float32]:
        """float32[N, 3]: centre (x, y) and half diagonal of each object's box; kept."""
        boxes = np.array([item.box for item in self.objects], np.float32).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, np.hypot(*sides.T)[:, None] / 2], axis=1)

    @cached_property
    def half(self) -> Image:
        """The image at half its size; kept."""
        return _halved(self.image)

    @cached_property
    def quarter(self) -> Image:
        """The image at a quarter of its size; kept."""
        return _halved(self.half)


def _halved(image: Image) -> Image:
    height, width = (max(1, side // 2) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def outline(mask: Mask, scale: float) -> tuple[Outline, ...]:
    """Outer contours of ``mask`` bool[H, W], multiplied by ``scale``.

    OpenCV's contours run through pixel centres: each point is moved outwards by half a pixel per axis, so that the
    extremes are the edges of the mask's box.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_KCOS)
    outlines = []
    for contour in contours:
        points = contour[:, 0].astype(np.float32)
        center = (points.min(axis=0) + points.max(axis=0)) / 2
        outlines.append((points + 0.5 + 0.5 * np.sign(points - center)).astype(np.float32) * np.float32(scale))
    return tuple(outlines)


def outlines_of(item: LabelledObject, scale: float) -> tuple[Outline, ...]:
    """The outlines of an object, multiplied by ``scale``: its polygons, or the contours of its run lengths."""
    if not isinstance(item.segmentation, list):
        return outline(item.mask(), scale)
    polygons = (np.array(points, np.float32).reshape(-1, 2) for points in item.segmentation)
    return tuple(points * np.float32(scale) for points in polygons if len(points) >= 3)


def load_folder(
    folder: Path,
    split: str | None,
    max_side: int,
    unlabelled: dict[str, float],
    names: Sequence[str] | None = None,
    *,
    boxes_only: bool = False,
    every: int = 1,
    complete_where_present: Collection[str] = (),
    workers: int = 0,
) -> list[TrainingImage]:
    """Decode a dataset folder.

    Args:
        folder: of any format that ``dataset_tools.labelled`` reads.
        split: name of one of its splits; None for all images.
        max_side: larger images are reduced to this long side in pixels.
        unlabelled: see ``TrainingImage``; the same for all images of the folder.
        names: keep only these file names.
        boxes_only: see ``TrainingImage``.
        every: keep only each so many-th image.
        complete_where_present: categories (and kinds) of ``unlabelled`` that are outlined without gaps in every image
            in which one of them is outlined: there they are not unlabelled.
        workers: processes that decode; 0: this one.

    Raises:
        ImageError: an image cannot be read.
        DatasetError: a category is unknown to ``dataset_tools.categories``.
    """
    entries = [entry for entry in read(folder, split)[::every] if names is None or entry.name in names]
    decode = partial(
        _decoded,
        folder=folder,
        max_side=max_side,
        unlabelled=unlabelled,
        boxes_only=boxes_only,
        complete_where_present=complete_where_present,
    )
    return in_processes(decode, entries, workers)


def _decoded(
    entry: LabelledImage,
    *,
    folder: Path,
    max_side: int,
    unlabelled: dict[str, float],
    boxes_only: bool,
    complete_where_present: Collection[str],
) -> TrainingImage:
    image = entry.pixels()
    scale = min(1.0, max_side / max(image.shape[:2]))
    if scale < 1.0:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    objects = []
    for item in entry.objects:
        category = canonical(item.label)
        if category is None:
            raise DatasetError(
                f"{folder}: annotation {item.id} has category {item.label!r}, which is no alias of "
                "a known one; add the alias to dataset_tools/categories.py or leave the annotation out"
            )
        outlines = outlines_of(item, scale)
        if outlines:
            objects.append(OutlinedObject(category, outlines, kind_of(item.label)))
    present = {name for item in objects for name in (item.category, item.kind)}
    silent = unlabelled
    if not present.isdisjoint(complete_where_present):
        silent = {name: weight for name, weight in unlabelled.items() if name not in complete_where_present}
    return TrainingImage(entry.name, image, tuple(objects), silent, boxes_only)


def draw_scenes(count: int, seed: int) -> list[TrainingImage]:
    """``count`` synthetic scenes (``dataset_tools.synthetic``) with seeds from ``seed`` on."""
    from dataset_tools import synthetic

    result = []
    for number in range(seed, seed + count):
        scene = synthetic.draw_scene(number)
        objects = (OutlinedObject(item.category, outline(item.mask, 1.0)) for item in scene.objects)
        result.append(TrainingImage(f"synthetic {number}", scene.image, tuple(o for o in objects if o.outlines), {}))
    return result
