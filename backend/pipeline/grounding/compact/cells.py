"""What every cell of an image looks like: to the detector's heat, and to its backbone, whatever it was trained to find.

The features before the heat were trained to tell the detector's categories from background, and an object of no such
category *is* background to them. The backbone knows more than it was asked for: it comes from ImageNet, and all its
depthwise kernels are still those. Cells of a level have windows of one size, whatever they are asked for; so the
backbone's level of stride 16 is kept whole, to be averaged over windows as large as the objects that are looked for
(``PlaceFeatures``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from backend.pipeline.devices import in_bfloat16
from backend.pipeline.grounding.compact.detections import cell_boxes, prepare, reading_sides
from backend.pipeline.grounding.compact.network import STRIDES, Detector
from backend.pipeline.types import Image

__all__ = ["Array", "Cells", "PlaceFeatures", "cells_of"]

Array = npt.NDArray[np.float32]
_COLOR = 64.0
_STEP = 8
"""Pixels of the finest reading from one place to the next."""


@dataclass(frozen=True, eq=False)
class PlaceFeatures:
    """The backbone's level of stride 16 of an image's finest reading, of unit length at each place: ``maps``
    float32[h, w, D] on a grid with ``per_pixel`` places for each pixel of the image along an axis.
    """

    maps: Array
    per_pixel: float

    def averaged(self, maps: Array, side: float) -> Array:
        """``maps`` [h, w, ...] on this grid, each place the mean over a square of ``side`` pixels around it."""
        cells = 2 * max(0, round((side * self.per_pixel - 1) / 2)) + 1
        return np.asarray(cv2.blur(maps, (cells, cells), borderType=cv2.BORDER_REPLICATE), np.float32)

    def at(self, centers: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows and columns of the places that hold ``centers`` [N, 2], in pixels of the image."""
        found = (centers * self.per_pixel).astype(np.int64)
        height, width = self.maps.shape[:2]
        return np.clip(found[:, 1], 0, height - 1), np.clip(found[:, 0], 0, width - 1)


@dataclass(frozen=True, eq=False)
class Cells:
    """All cells of an image at all scales: first parts of their descriptors float32[N, D], boxes float32[N, 4] and
    centres float32[N, 2], in pixels of the image; the other part is that of the place they lie at.
    """

    features: Array
    boxes: Array
    centers: Array
    places: PlaceFeatures

    @property
    def dimensions(self) -> int:
        """Of a whole descriptor."""
        return self.features.shape[1] + self.places.maps.shape[2]

    def described(self, chosen: npt.NDArray[np.integer], side: float) -> Array:
        """Whole descriptors float32[len(chosen), ``dimensions``] of some cells, their places averaged over windows of
        ``side`` pixels.
        """
        around = self.places.averaged(self.places.maps, side)[self.places.at(self.centers[chosen])]
        return np.concatenate([self.features[chosen], around], axis=1)

    def weighted(self, weights: Array, side: float) -> Array:
        """float32[N]: the descriptors of all cells, as ``described``, times ``weights`` float32[``dimensions``]."""
        split = self.features.shape[1]
        # A mean of products is the product of the mean: one map is averaged instead of all dimensions.
        around = self.places.averaged(self.places.maps @ weights[split:], side)
        return np.asarray(self.features @ weights[:split] + around[self.places.at(self.centers)], np.float32)


@torch.inference_mode()
def cells_of(detector: Detector, scales: Sequence[int], image: Image, *, bfloat16: bool) -> Cells:
    """The cells of ``image`` uint8[H, W, 3] RGB, read at ``scales`` (``reading_sides``).

    The first part of a descriptor is the features before the heat, the colour, and half the logarithm of the area of
    the cell's box.
    """
    height, width = image.shape[:2]
    readings = []
    for side in reading_sides(scales, max(height, width)):
        factor = side / max(height, width)
        inputs = prepare(image, factor).to(detector.mean.device)
        with in_bfloat16(inputs.device, bfloat16):
            stages = detector.levels(inputs)
            pyramid = detector.pyramid_of(stages)
            sides = detector.sides(pyramid)
            looks = [
                functional.relu(norm(detector.heat.conv(level)), inplace=True)
                for norm, level in zip(detector.heat.norms, pyramid, strict=True)
            ]
        picture = np.asarray(inputs[0].permute(1, 2, 0).cpu().numpy() / np.float32(_COLOR), np.float32)
        readings += [
            _Level(stride, factor, look[0].float().permute(1, 2, 0).cpu().numpy(), level[:, :4].float(), picture)
            for stride, look, level in zip(STRIDES, looks, sides, strict=True)
        ]
    counts = [reading.cells_in(height, width) for reading in readings]
    total = sum(rows * columns for rows, columns in counts)
    look_width = readings[0].looks.shape[2]
    features = np.empty((total, look_width + 3 + 1), np.float32)
    boxes, centers = np.empty((total, 4), np.float32), np.empty((total, 2), np.float32)
    start = 0
    for reading, (rows, columns) in zip(readings, counts, strict=True):
        place = slice(start, start := start + rows * columns)
        step = reading.stride / reading.factor
        x, y = ((np.arange(n, dtype=np.float32) + 0.5) * np.float32(step) for n in (columns, rows))
        centers[place] = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        boxes[place] = reading.boxes()[:rows, :columns].reshape(-1, 4)
        areas = np.clip((boxes[place, 2:] - boxes[place, :2]).prod(axis=1), 1, None)
        described = features[place].reshape(rows, columns, -1)
        described[:, :, :look_width] = reading.looks[:rows, :columns]
        described[:, :, look_width : look_width + 3] = reading.colors()[:rows, :columns]
        described[:, :, look_width + 3] = 0.5 * np.log(areas).reshape(rows, columns)
    return Cells(features, boxes, centers, _places(stages[2], factor, image))  # of the last reading, the finest


@dataclass(frozen=True, eq=False)
class _Level:
    """One level of one reading: ``looks`` float32[h, w, C] before the heat, ``sides`` [1, 4, h, w] of the network, the
    picture float32[H, W, 3] that it read, scaled by ``factor``.
    """

    stride: int
    factor: float
    looks: Array
    sides: Tensor
    picture: Array

    def cells_in(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns whose middles lie in an image of this size: the network's input is padded at its end."""
        step = np.float32(self.stride / self.factor)
        rows, columns = self.looks.shape[:2]
        return tuple(  # type: ignore[return-value]
            int(np.count_nonzero((np.arange(count, dtype=np.float32) + 0.5) * step < length))
            for count, length in ((rows, height), (columns, width))
        )

    def boxes(self) -> Array:
        """float32[h, w, 4] in pixels of the image."""
        boxes = cell_boxes(self.sides, self.stride)[0].permute(1, 2, 0).cpu().numpy()
        return np.asarray(boxes / np.float32(self.factor), np.float32)

    def colors(self) -> Array:
        """float32[h, w, 3]: the mean of each cell's pixels."""
        rows, columns = self.looks.shape[:2]
        return np.asarray(cv2.resize(self.picture, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)


def _places(stage: Tensor, factor: float, image: Image) -> PlaceFeatures:
    """``stage`` [1, D, h, w]: the backbone's level of stride 16 of ``image`` scaled by ``factor``."""
    unit = functional.normalize(stage[:1].float().cpu(), dim=1, eps=1e-3)
    # The network's input is padded at its end: only what the image covers is placed.
    rows, columns = (max(1, round(length * factor / 16)) for length in image.shape[:2])
    shape = tuple(max(1, round(length * factor / _STEP)) for length in image.shape[:2])
    placed = functional.interpolate(unit[:, :, :rows, :columns], size=shape, mode="bilinear", align_corners=False)
    return PlaceFeatures(placed[0].permute(1, 2, 0).contiguous().numpy(), factor / _STEP)
