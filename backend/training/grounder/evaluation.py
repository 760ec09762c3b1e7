"""Quality of detections on outlined images: average precision per category at a box IoU of 0.5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    ranked = sorted(
        ((score, image, box) for image, found in enumerate(detections) for box, score in found), key=lambda d: -d[0]
    )
    matched: list[set[int]] = [set() for _ in truth]
    hits = np.zeros(len(ranked))
    for rank, (_, image, box) in enumerate(ranked):
        ratios = [box.iou(true) if k not in matched[image] else 0.0 for k, true in enumerate(truth[image])]
        if ratios and max(ratios) >= MATCH_IOU:
            matched[image].add(int(np.argmax(ratios)))
            hits[rank] = 1
    total = sum(len(boxes) for boxes in truth)
    if not total or not len(ranked):
        return 0.0
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(ranked) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], found / total])
    return float((np.diff(recall) * envelope).sum())


def detection_quality(
    detections: Sequence[Sequence[Detection]], images: Sequence[TrainingImage], categories: Sequence[str]
) -> dict[str, float]:
    """``mAP50`` over the categories that occur in ``images``, and ``AP50 <category>`` for each of them.

    A category is left out of the images whose labels say nothing about it (``TrainingImage.unlabelled`` of 0).
    """
    result = {}
    for category in categories:
        rated = [i for i, image in enumerate(images) if image.unlabelled.get(category, 1.0) > 0]
        truth = [[item.box for item in images[i].objects if item.category == category] for i in rated]
        if any(truth):
            found = [[(d.box, d.score) for d in detections[i] if d.category == category] for i in rated]
            result[f"AP50 {category}"] = average_precision(found, truth)
    return {"mAP50": sum(result.values()) / max(1, len(result))} | result


def evaluate_detector(
    detector: Detector, images: Sequence[TrainingImage], scales: Sequence[int], *, bfloat16: bool = False
) -> dict[str, float]:
    """``detection_quality`` of ``detector`` read at ``scales``."""
    detections = [detect(detector, image.image, scales, LOWEST_SCORE, bfloat16=bfloat16) for image in images]
    return detection_quality(detections, images, detector.config.categories)
