"""What every cell of an image looks like: to the detector's heat, and to its backbone, whatever it was trained to find.

The features before the heat were trained to tell the detector's categories from background, and an object of no such
category *is* background to them. The backbone knows more than it was asked for: it comes from ImageNet, its first
blocks and all depthwise kernels are still those. So its levels are part of the description, normalised at each place,
projected to few dimensions by matrices drawn once (random projections keep distances), and averaged over a window
around the cell.
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

__all__ = ["Array", "Cells", "cells_of"]

Array = npt.NDArray[np.float32]
_FINE, _COARSE = 16, 64
"""Dimensions that the backbone's level of stride 4 is projected to, and its other levels together."""
_WINDOW = 6
"""Side in cells of the window that a cell's surroundings are averaged over."""
_COLOR = 64.0


@dataclass(frozen=True, eq=False)
class Cells:
    """All cells of an image at all scales: descriptors float32[N, D], boxes float32[N, 4] and centres float32[N, 2],
    in pixels of the image.
    """

    features: Array
    boxes: Array
    centers: Array


@torch.inference_mode()
def cells_of(detector: Detector, scales: Sequence[int], image: Image, *, bfloat16: bool) -> Cells:
    """The cells of ``image`` uint8[H, W, 3] RGB, read at ``scales`` (``reading_sides``).

    A descriptor is the features before the heat, the colour, half the logarithm of the area of the cell's box, and the
    backbone's part.
    """
    height, width = image.shape[:2]
    readings = []
    surroundings = _Surroundings(image)
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
        surroundings.add(stages, factor)
        picture = np.asarray(inputs[0].permute(1, 2, 0).cpu().numpy() / np.float32(_COLOR), np.float32)
        readings += [
            _Level(stride, factor, look[0].float().permute(1, 2, 0).cpu().numpy(), level[:, :4].float(), picture)
            for stride, look, level in zip(STRIDES, looks, sides, strict=True)
        ]
    counts = [reading.cells_in(height, width) for reading in readings]
    total = sum(rows * columns for rows, columns in counts)
    look_width = readings[0].looks.shape[2]
    features = np.empty((total, look_width + 3 + 1 + surroundings.dimensions), np.float32)
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
        surroundings.around(x, y, _WINDOW * step, out=described[:, :, look_width + 4 :])
    return Cells(features, boxes, centers)


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


class _Surroundings:
    """The backbone's levels of all readings of an image on one grid, of cells of 8 pixels of the finest reading.

    ``image``: uint8[H, W, 3] RGB, whose readings are added, the finest last.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        self._stages: list[tuple[float, list[Tensor]]] = []
        self._sums: npt.NDArray[np.float64] | None = None
        self._per_pixel = 1.0

    def add(self, stages: Sequence[Tensor], factor: float) -> None:
        """What the backbone says of the image scaled by ``factor``."""
        self._stages.append((factor, [stage[0].float() for stage in stages]))

    @property
    def dimensions(self) -> int:
        """D of ``around``."""
        return _COARSE + _FINE + 3 + 1

    def around(self, x: Array, y: Array, side: float, out: Array) -> None:
        """Means over squares of ``side`` pixels around places of a grid, into ``out`` float32[len(y), len(x), D]."""
        if self._sums is None:
            self._sums = self._summed()
        (x0, x1), columns = self._spans(x, side, self._sums.shape[1] - 1)
        (y0, y1), rows = self._spans(y, side, self._sums.shape[0] - 1)
        top, bottom = self._sums[y0], self._sums[y1]
        total = bottom[:, x1] - bottom[:, x0] - top[:, x1] + top[:, x0]
        areas = (y1 - y0)[:, None, None] * (x1 - x0)[None, :, None]
        out[:] = (total / areas).astype(np.float32)[rows[:, None], columns]

    def _spans(self, places: Array, side: float, limit: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Along one axis: first and last + 1 of the cells around ``places`` [N], int64[2, M] without repeats, and
        which of them is each place's, int64[N].
        """
        low = np.clip(np.round((places - side / 2) * self._per_pixel), 0, limit - 1)
        high = np.clip(np.round((places + side / 2) * self._per_pixel), low + 1, limit)
        spans, which = np.unique(np.stack([low, high]).astype(np.int64), axis=1, return_inverse=True)
        return spans, which.ravel()

    def _summed(self) -> npt.NDArray[np.float64]:
        """float64[h + 1, w + 1, D]: sums over all cells above and to the left."""
        finest = self._stages[-1][0]
        self._per_pixel = finest / 8
        shape = [max(1, round(length * self._per_pixel)) for length in self._image.shape[:2]]
        maps = torch.zeros(_COARSE, *shape)
        for reading, (factor, stages) in enumerate(reversed(self._stages)):
            for level, stage in enumerate(stages[1:], start=1):
                if reading and level == 1:
                    continue  # hardly other than stride 16 of the finer reading
                maps += self._placed(stage, 4 * 2**level, factor, shape, _COARSE, (reading, level))
        fine = self._placed(self._stages[-1][1][0], 4, finest, shape, _FINE, (0, 0))
        colors = cv2.resize(self._image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA).astype(np.float32)
        lightness = self._image.mean(axis=2, dtype=np.float32)
        edges = np.abs(cv2.Sobel(lightness, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(lightness, cv2.CV_32F, 0, 1))
        edges = cv2.resize(edges, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)[:, :, None]
        described = torch.cat([maps, fine]).permute(1, 2, 0).numpy()
        everything = np.concatenate([described, colors / _COLOR, edges / _COLOR], axis=2)
        return np.pad(everything.cumsum(axis=0, dtype=np.float64).cumsum(axis=1), ((1, 0), (1, 0), (0, 0)))

    def _placed(
        self, stage: Tensor, stride: int, factor: float, shape: Sequence[int], dimensions: int, seed: tuple[int, int]
    ) -> Tensor:
        """A level [C, h, w] of unit length at each place, projected, on the grid: float32[``dimensions``, *shape]."""
        draws = np.random.default_rng(seed).standard_normal((dimensions, len(stage))) / np.sqrt(dimensions)
        unit = functional.normalize(stage.cpu(), dim=0, eps=1e-3)
        level = torch.einsum("dc,chw->dhw", torch.from_numpy(draws.astype(np.float32)), unit)
        # The network's input is padded at its end: only what the image covers is placed.
        rows, columns = (max(1, round(length * factor / stride)) for length in self._image.shape[:2])
        return functional.interpolate(
            level[None, :, :rows, :columns], size=tuple(shape), mode="bilinear", align_corners=False
        )[0]
