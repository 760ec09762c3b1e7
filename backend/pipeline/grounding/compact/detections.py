"""From the detector's maps to boxes: reading an image at several scales, peaks, suppression of repeats.

Large images lose their small objects when they are reduced to what the network reads at once: tiles find those, the
whole image the large ones. A tile is read like an image of its own, so scores mean the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from backend.pipeline.devices import in_bfloat16
from backend.pipeline.grounding.compact.network import (
    PADDING_MULTIPLE,
    STRIDES,
    Detector,
    DetectorOutput,
    read_mirrored,
)
from backend.pipeline.types import Image
from dataset_tools.geometry import Box
from dataset_tools.maps.tiles import windows

PADDING_VALUE = (102, 105, 94)
"""RGB around an image that does not fill the network's input; training pads with it too."""
_LEGIBLE, _CLEAR = 8.0, 16.0
"""Longer side in network pixels from which a reading is asked for an object, and from which all its looks count."""
_LOWEST_PEAK = 0.03
_LARGEST_READING = 1280
_PEAKS = 600
"""Peaks kept per level and scale."""
LARGEST_WHOLE = 2048
"""Longest side in pixels of images that are read as a whole only: 1280 pixels of it are read, 0.625 of its size."""
TILE = 1280
TILE_OVERLAP = 256
"""Objects up to this long are whole in at least one tile."""
_BORDER = 3.0
"""A box that ends this many pixels from a cut is taken to be cut."""
_REPEATED = 0.5
_INSIDE = 0.8

FloatT = TypeVar("FloatT", np.float32, np.float64)


@dataclass(frozen=True)
class Detection:
    """An object found: its box in pixels of the image, its canonical category, its score in [0, 1]."""

    box: Box
    category: str
    score: float


@torch.inference_mode()
def detect(
    detector: Detector,
    image: Image,
    scales: Sequence[int],
    threshold: float,
    *,
    mirrored: int = 0,
    overlap: float = 0.5,
    bfloat16: bool = False,
) -> list[Detection]:
    """Objects in ``image`` uint8[H, W, 3] RGB, best first.

    Args:
        detector: in evaluation mode.
        image: any size.
        scales: long sides in pixels at which the image is read. The finest grows with images of more than 1280 pixels,
            whose small objects it would lose; small images are enlarged at most twice.
        threshold: detections below this score are dropped.
        mirrored: in so many readings, the coarsest first, the mirror image is read too.
        overlap: of two boxes of one category with a larger IoU, the better one is kept.
        bfloat16: compute in bfloat16, as in training: a quarter of the time on CPUs that multiply it natively.
    """
    height, width = image.shape[:2]
    outputs, device = {}, detector.mean.device
    with in_bfloat16(device, bfloat16):
        for side, twice in readings(scales, mirrored, max(height, width)):
            inputs = prepare(image, side / max(height, width)).to(device)
            outputs[side] = read_mirrored(detector, inputs) if twice else detector(inputs)
    return find(outputs, (height, width), detector.config.categories, threshold, overlap=overlap)


def detect_anywhere(
    detector: Detector,
    image: Image,
    scales: Sequence[int],
    threshold: float,
    *,
    mirrored: int = 0,
    bfloat16: bool = False,
) -> list[Detection]:
    """``detect``, in tiles too where a side of ``image`` uint8[H, W, 3] RGB is longer than ``LARGEST_WHOLE``.

    Tiles of 1280 pixels overlap by 256; what a cut touches is left to the neighbouring tile or, if it is longer than
    the overlap, to the reading of the whole image. A part found in a tile gives way to the whole object found with at
    least its score.
    """
    height, width = image.shape[:2]
    whole = detect(detector, image, scales, threshold, mirrored=mirrored, bfloat16=bfloat16)
    if max(height, width) <= LARGEST_WHOLE:
        return whole
    found = [d for d in whole if max(d.box.width, d.box.height) > TILE_OVERLAP / 2]
    for x, y, w, h in windows(width, height, TILE, TILE_OVERLAP):
        tile = np.ascontiguousarray(image[y : y + h, x : x + w])
        for part in detect(detector, tile, scales, threshold, mirrored=mirrored, bfloat16=bfloat16):
            box = part.box.shifted(x, y)
            if not is_cut(box, Box(x, y, x + w, y + h), width, height):
                found.append(Detection(box, part.category, part.score))
    return without_repeats(found)


def is_cut(box: Box, tile: Box, width: int, height: int) -> bool:
    """Whether ``box`` ends at a border of ``tile`` that is no border of the image."""
    return (
        (box.x0 < tile.x0 + _BORDER and tile.x0 > 0)
        or (box.y0 < tile.y0 + _BORDER and tile.y0 > 0)
        or (box.x1 > tile.x1 - _BORDER and tile.x1 < width)
        or (box.y1 > tile.y1 - _BORDER and tile.y1 < height)
    )


def find(
    outputs: Mapping[int, DetectorOutput],
    size: tuple[int, int],
    categories: Sequence[str],
    threshold: float,
    *,
    overlap: float = 0.5,
) -> list[Detection]:
    """Objects in the readings of one image, best first.

    Args:
        outputs: what the network said, by the long side in pixels that the image was read at, ascending.
        size: (height, width) of the image in pixels.
        categories: of the heat's channels.
        threshold: detections below this score are dropped.
        overlap: of two boxes of one category with a larger IoU, the better one is kept.
    """
    height, width = size
    factors = np.array(list(outputs)) / max(height, width)
    boxes, scores, labels, readings = [], [], [], []
    for reading, (factor, output) in enumerate(zip(factors, outputs.values(), strict=True)):
        found = peaks(output, min(threshold, _LOWEST_PEAK))
        boxes.append(found[0] / factor)
        scores.append(found[1])
        labels.append(found[2])
        readings.append(np.full(len(found[1]), reading))
    kept = merge(
        np.concatenate(boxes),
        np.concatenate(scores),
        np.concatenate(labels),
        np.concatenate(readings),
        factors=factors,
        looks=np.array([output.looks for output in outputs.values()]),
        overlap=overlap,
    )
    result = []
    for box, score, label in zip(*kept, strict=True):
        clipped = Box(*box.tolist()).clip(width, height)
        if score >= threshold and clipped.width >= 1 and clipped.height >= 1:
            result.append(Detection(clipped, categories[label], float(score)))
    return result


def reading_sides(scales: Sequence[int], long_side: int) -> list[int]:
    """The long sides in pixels, ascending, at which an image of ``long_side`` pixels is read."""
    *coarse, finest = sorted(scales)
    finest = max(finest, min(round(0.625 * long_side), _LARGEST_READING))
    return sorted({max(PADDING_MULTIPLE, min(side, 2 * long_side)) for side in (*coarse, finest)})


def readings(scales: Sequence[int], mirrored: int, long_side: int) -> list[tuple[int, bool]]:
    """``reading_sides``, each with whether the mirror image is read there too: at the ``mirrored`` coarsest."""
    return [(side, place < mirrored) for place, side in enumerate(reading_sides(scales, long_side))]


def prepare(image: Image, factor: float) -> Tensor:
    """The network's input float32[1, 3, H', W'] in [0, 255]: ``image`` scaled by ``factor`` and padded at the end."""
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    bottom, right = -height % PADDING_MULTIPLE, -width % PADDING_MULTIPLE
    padded = cv2.copyMakeBorder(resized, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=PADDING_VALUE)
    tensor = torch.from_numpy(padded).permute(2, 0, 1)[None]
    return tensor.float().contiguous(memory_format=torch.channels_last)


def cell_boxes(sides: Tensor, stride: int) -> Tensor:
    """Boxes [B, 4, h, w] as (x0, y0, x1, y1) in pixels from the output ``sides`` of the level with ``stride``."""
    height, width = sides.shape[-2:]
    lengths = sides.clamp(-4, 5).exp() * stride
    y = (torch.arange(height, dtype=sides.dtype, device=sides.device) + 0.5).view(1, -1, 1) * stride
    x = (torch.arange(width, dtype=sides.dtype, device=sides.device) + 0.5).view(1, 1, -1) * stride
    left, top, right, bottom = lengths.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=1)


def peaks(
    output: DetectorOutput, threshold: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Local maxima of the heat of ONE image, all levels: boxes [N, 4] in network pixels, scores [N], labels [N]."""
    boxes, scores, labels = [], [], []
    groups = torch.tensor(output.groups or [0] * output.heat[0].shape[1])
    for level, stride in enumerate(STRIDES):
        heat = output.heat[level][0].float().sigmoid()
        heat = heat * (functional.max_pool2d(heat[None], 3, 1, 1)[0] == heat)
        values, indices = heat.flatten().topk(min(_PEAKS, heat.numel()))
        found = (values >= threshold) & (values > 0)
        indices, values = indices[found], values[found]
        cells = heat.shape[1] * heat.shape[2]
        cell, label = indices % cells, indices // cells
        sides = output.sides[level][0].float().reshape(-1, 4, *heat.shape[1:])
        boxes.append(cell_boxes(sides, stride).flatten(2)[groups.to(label.device)[label], :, cell])
        scores.append(values)
        labels.append(label)
    return torch.cat(boxes).cpu().numpy(), torch.cat(scores).cpu().numpy(), torch.cat(labels).cpu().numpy()


def merge(
    boxes: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    readings: npt.NDArray[np.int64],
    *,
    factors: npt.NDArray[np.float64],
    overlap: float,
    looks: npt.NDArray[np.int64] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Non-maximum suppression per category over several readings of an image, in which the readings vote.

    A kept box becomes the mean, weighted by score and ``looks``, of itself and the suppressed boxes that agree with it
    (IoU of at least 0.65); its score becomes the mean over the looks of the best score there at an IoU of 0.5, 0 where
    a reading has none: what is seen at one scale only is doubtful. Readings in which the box is too small to be seen
    (its longer side below ``_LEGIBLE`` network pixels) are not asked; the finest always is.

    Args:
        boxes: float32[N, 4].
        scores: float32[N] in [0, 1].
        labels: int64[N], category indices.
        readings: int64[N], which reading each box is from, counted from 0.
        factors: float64[R], network pixels per unit of ``boxes`` in each reading, ascending.
        overlap: of two boxes of one category with a larger IoU, the better one is kept.
        looks: int64[R], how many looks at the image each reading is the mean of: its voices on boxes whose longer side
            is at least ``_CLEAR`` network pixels; None: one each.

    Returns:
        Boxes [M, 4], scores [M] and labels [M], best first.
    """
    voices = np.ones(len(factors), np.float32) if looks is None else looks.astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    boxes, scores, labels, readings = boxes[order], scores[order], labels[order], readings[order]
    better, worse, shared = _overlaps(boxes, labels)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    ratios = shared / np.maximum(areas[better] + areas[worse] - shared, 1e-6)
    repeated = ratios > overlap
    ended_by = _suppressed(better[repeated], worse[repeated], len(boxes))
    kept = np.flatnonzero(ended_by == np.arange(len(boxes)))
    # A kept box is judged by itself and by what no better box had taken before it.
    asked = (ended_by[better] == better) & (ended_by[worse] >= better)
    judged, judges = np.concatenate([kept, better[asked]]), np.concatenate([kept, worse[asked]])
    agreement = np.concatenate([np.ones(len(kept), np.float32), ratios[asked]])
    best = np.zeros((len(boxes), len(factors)), np.float32)
    seen = agreement >= 0.5
    np.maximum.at(best, (judged[seen], readings[judges[seen]]), scores[judges[seen]])
    votes, weights = np.zeros_like(boxes), np.zeros((len(boxes), 1), boxes.dtype)
    for_box = agreement >= 0.65
    weight = (scores * voices[readings])[judges[for_box], None]
    np.add.at(votes, judged[for_box], weight * boxes[judges[for_box]])
    np.add.at(weights, judged[for_box], weight)
    longer = factors * (boxes[kept, 2:] - boxes[kept, :2]).max(axis=1, initial=0)[:, None]
    legible = longer >= _LEGIBLE
    legible[:, -1:] = True
    counted = legible * np.where(longer >= _CLEAR, voices, np.float32(1))
    means = (best[kept] * counted).sum(axis=1) / counted.sum(axis=1)
    ranking = np.argsort(-means, kind="stable")
    return (votes[kept] / weights[kept])[ranking], means[ranking], labels[kept][ranking]


def without_repeats(found: Sequence[Detection]) -> list[Detection]:
    """The detections without repeats of better ones of their category (IoU above 0.5), and without parts of them (0.8
    of them inside); best first. For what overlapping tiles and the reading of the whole found of one image.
    """
    ranked = sorted(found, key=lambda detection: -detection.score)
    boxes = np.array([detection.box for detection in ranked], np.float64).reshape(-1, 4)
    _, labels = np.unique([detection.category for detection in ranked], return_inverse=True)
    better, worse, shared = _overlaps(boxes, labels)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    repeated = (shared > _REPEATED * (areas[better] + areas[worse] - shared)) | (shared >= _INSIDE * areas[worse])
    ended_by = _suppressed(better[repeated], worse[repeated], len(ranked))
    return [detection for index, detection in enumerate(ranked) if ended_by[index] == index]


def _overlaps(
    boxes: npt.NDArray[FloatT], labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[FloatT]]:
    """Pairs of boxes [N, 4] of one label that share area: indices first < second, ascending, and the area shared.

    A sweep from left to right: of thousands of boxes few meet, and only those are looked at.
    """
    # Side by side, label after label, so that boxes of different labels never meet.
    span = float(np.ptp(boxes[:, [0, 2]])) + 1.0 if len(boxes) else 1.0
    left, right = (boxes[:, side].astype(np.float64) + labels * span for side in (0, 2))
    order = np.argsort(left, kind="stable")
    reach = np.maximum(np.searchsorted(left[order], right[order]) - np.arange(len(order)) - 1, 0)
    one = np.repeat(np.arange(len(order)), reach)
    other = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(reach) - reach, reach)
    pairs = np.sort(np.stack([order[one], order[other]]), axis=0)
    first, second = pairs[:, (boxes[pairs[0], 1] < boxes[pairs[1], 3]) & (boxes[pairs[1], 1] < boxes[pairs[0], 3])]
    ascending = np.lexsort((second, first))
    first, second = first[ascending], second[ascending]
    low, high = np.maximum(boxes[first, :2], boxes[second, :2]), np.minimum(boxes[first, 2:], boxes[second, 2:])
    return first, second, np.clip(high - low, 0, None).prod(axis=1)


def _suppressed(better: npt.NDArray[np.int64], worse: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """int64[count]: which item ends each one, itself for one that is kept.

    From the first on, every item that none before has ended is kept, and ends the ``worse`` of its pairs (``better`` <
    ``worse``, ascending).
    """
    ended_by = np.arange(count)
    bounds = np.searchsorted(better, np.arange(count + 1)).tolist()
    for index in np.unique(better).tolist():
        if ended_by[index] == index:
            rivals = worse[bounds[index] : bounds[index + 1]]
            ended_by[rivals[ended_by[rivals] == rivals]] = index
    return ended_by
