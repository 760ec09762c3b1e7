"""From the detector's maps to boxes: reading an image at several scales, peaks, suppression of repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from backend.pipeline.grounding.compact.network import PADDING_MULTIPLE, STRIDES, Detector, DetectorOutput
from backend.pipeline.types import Image
from dataset_tools.geometry import Box

PADDING_VALUE = (102, 105, 94)
"""RGB around an image that does not fill the network's input; training pads with it too."""
_LEGIBLE = 8.0
_LOWEST_PEAK = 0.03
_LARGEST_READING = 1280
_PEAKS = 600
"""Peaks kept per level and scale."""


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
        overlap: of two boxes of one category with a larger IoU, the better one is kept.
        bfloat16: compute in bfloat16, as in training: a quarter of the time on CPUs that multiply it natively.
    """
    height, width = image.shape[:2]
    outputs = {}
    for side in reading_sides(scales, max(height, width)):
        inputs = prepare(image, side / max(height, width)).to(detector.mean.device)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
            outputs[side] = detector(inputs)
    return find(outputs, (height, width), detector.config.categories, threshold, overlap=overlap)


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
    for level, stride in enumerate(STRIDES):
        heat = output.heat[level][0].float().sigmoid()
        heat = heat * (functional.max_pool2d(heat[None], 3, 1, 1)[0] == heat)
        values, indices = heat.flatten().topk(min(_PEAKS, heat.numel()))
        found = (values >= threshold) & (values > 0)
        indices, values = indices[found], values[found]
        cells = heat.shape[1] * heat.shape[2]
        cell, label = indices % cells, indices // cells
        found_boxes = cell_boxes(output.sides[level].float(), stride)[0].flatten(1)[:, cell].T
        if output.own_sides is not None:
            own = cell_boxes(output.own_sides[level].float(), stride)[0].flatten(1)[:, cell].T
            found_boxes = torch.where((label >= output.own_from)[:, None], own, found_boxes)
        boxes.append(found_boxes)
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
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Non-maximum suppression per category over several readings of an image, in which the readings vote.

    A kept box becomes the mean, weighted by score, of itself and the suppressed boxes that agree with it (IoU of at
    least 0.65); its score becomes the mean over the readings of the best score there at an IoU of 0.5, 0 where a
    reading has none: what is seen at one scale only is doubtful. Readings in which the box is too small to be seen
    (its longer side below ``_LEGIBLE`` network pixels) are not asked; the finest always is.

    Args:
        boxes: float32[N, 4].
        scores: float32[N] in [0, 1].
        labels: int64[N], category indices.
        readings: int64[N], which reading each box is from, counted from 0.
        factors: float64[R], network pixels per unit of ``boxes`` in each reading, ascending.
        overlap: of two boxes of one category with a larger IoU, the better one is kept.

    Returns:
        Boxes [M, 4], scores [M] and labels [M], best first.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, scores, labels, readings = boxes[order], scores[order], labels[order], readings[order]
    alive = np.ones(len(boxes), bool)
    voted, means, kept = [], [], []
    for index in range(len(boxes)):
        if not alive[index]:
            continue
        same = np.flatnonzero(alive & (labels == labels[index]))
        ratios = _iou(boxes[index], boxes[same])
        voters, witnesses = same[ratios >= 0.65], same[ratios >= 0.5]
        best = np.zeros(len(factors), np.float32)
        np.maximum.at(best, readings[witnesses], scores[witnesses])
        voted.append(np.average(boxes[voters], axis=0, weights=scores[voters]))
        asked = factors * (boxes[index, 2:] - boxes[index, :2]).max() >= _LEGIBLE
        asked[-1] = True
        means.append(best[asked].mean())
        kept.append(labels[index])
        alive[same[ratios > overlap]] = False
        alive[index] = False
    ranking = np.argsort(-np.array(means, np.float32), kind="stable")
    return (
        np.array(voted, np.float32).reshape(-1, 4)[ranking],
        np.array(means, np.float32)[ranking],
        np.array(kept, np.int64)[ranking],
    )


def _iou(box: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    result: npt.NDArray[np.float32] = overlap / np.maximum((box[2:] - box[:2]).prod() + areas - overlap, 1e-6)
    return result
