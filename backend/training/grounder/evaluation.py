"""Quality of detections on outlined images: average precision per category at a box IoU of 0.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from backend.pipeline.grounding.compact.detections import Detection, detect
from backend.pipeline.grounding.compact.network import Detector
from backend.training.grounder.data import TrainingImage
from dataset_tools.geometry import Box

MATCH_IOU = 0.5
LOWEST_SCORE = 0.05
"""Detections below this score are not looked at."""


def average_precision(detections: Sequence[Sequence[tuple[Box, float]]], truth: Sequence[Sequence[Box]]) -> float:
    """Area under the precision-recall curve of one category (all points, VOC 2010).

    Args:
        detections: per image, boxes with scores.
        truth: per image, the true boxes; each may be matched once, by the best-scored detection that reaches an IoU
            of ``MATCH_IOU``.
    """
    scores, hits = [], []
    for found, boxes in zip(detections, truth, strict=True):
        ranked = sorted(found, key=lambda d: -d[1])
        scores += [score for _, score in ranked]
        hits += matched([box for box, _ in ranked], boxes)
    total = sum(len(boxes) for boxes in truth)
    if not total or not scores:
        return 0.0
    order = np.argsort(-np.array(scores), kind="stable")
    right = np.cumsum(np.array(hits, float)[order])
    precision = right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], right / total])
    return float((np.diff(recall) * envelope).sum())


def matched(ranked: Sequence[Box], truth: Sequence[Box]) -> list[bool]:
    """Whether each box of one image, best first, finds a true box that no better one has found (``MATCH_IOU``)."""
    ious = pairwise_iou(ranked, truth)
    hits = []
    for row in ious:
        hit = bool(row.size and row.max() >= MATCH_IOU)
        if hit:
            ious[:, int(row.argmax())] = 0.0
        hits.append(hit)
    return hits


def pairwise_iou(boxes: Sequence[Box], others: Sequence[Box]) -> npt.NDArray[np.float64]:
    """float64[len(boxes), len(others)]."""
    a = np.array(boxes, np.float64).reshape(-1, 1, 4)
    b = np.array(others, np.float64).reshape(1, -1, 4)
    shared = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(axis=2)
    total = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2) - shared
    result: npt.NDArray[np.float64] = shared / np.maximum(total, 1e-9)
    return result


def detection_quality(
    detections: Sequence[Sequence[Detection]], images: Sequence[TrainingImage], categories: Sequence[str]
) -> dict[str, float]:
    """``mAP50`` over the categories that occur in ``images``, and ``AP50 <category>`` for each of them.

    A category is left out of the images whose labels say nothing about it (``TrainingImage.unlabelled`` of 0).
    """
    result = {}
    for category in categories:
        rated = [i for i, image in enumerate(images) if image.knows(category)]
        truth = [images[i].boxes_of(category) for i in rated]
        if any(truth):
            found = [[(d.box, d.score) for d in detections[i] if d.category == category] for i in rated]
            result[f"AP50 {category}"] = average_precision(found, truth)
    return {"mAP50": sum(result.values()) / max(1, len(result))} | result


def evaluate_detector(
    detector: Detector, sets: Mapping[str, Sequence[TrainingImage]], scales: Sequence[int], *, bfloat16: bool = False
) -> dict[str, float]:
    """``detection_quality`` of ``detector`` read at ``scales`` over all ``sets``, and ``mAP50 <set>`` of each."""
    found = {
        name: [detect(detector, image.image, scales, LOWEST_SCORE, bfloat16=bfloat16) for image in images]
        for name, images in sets.items()
    }
    categories = detector.config.categories
    all_found = [one for detections in found.values() for one in detections]
    all_images = [image for images in sets.values() for image in images]
    result = detection_quality(all_found, all_images, categories)
    for name, images in sets.items():
        result[f"mAP50 {name}"] = detection_quality(found[name], images, categories)["mAP50"]
    return result
