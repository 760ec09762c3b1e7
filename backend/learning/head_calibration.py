"""What the scores of newly learnt categories mean, from labels that training has not seen; the old ones stay.

Cross-fitting: the labelled images are dealt into two halves, an adapter is trained on each, and rates the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from backend.learning.examples import LabelledImage
from backend.learning.feature_views import detections_of
from backend.learning.grounder_calibration import best_threshold, threshold_curve
from backend.learning.grounder_evaluation import LOWEST_SCORE, MATCH_IOU
from backend.learning.head_training import HeadData, train_adapter, with_adapter
from backend.pipeline.grounding.detections import Detection
from backend.pipeline.grounding.detector import Calibration, Detector

__all__ = ["cross_fitted", "rated"]

_PRIOR_OBJECTS = 5
"""A category's own threshold counts as much as the old ones' mean when it has so many labelled objects."""


def cross_fitted(
    detector: Detector, calibration: Calibration, data: HeadData, new: Sequence[str], width: int, steps: int
) -> Calibration:
    """``calibration`` with the score of even odds for each of ``new``.

    Args:
        detector: without adapter.
        calibration: its own.
        data: what the adapter is trained on.
        new: categories that ``detector`` does not know.
        width: of the adapters.
        steps: of their trainings.
    """
    images = list({image.key: image for image, _ in data.project}.values())
    told = [image for image in images if image.complete.intersection(new) or _names(image).intersection(new)]
    halves = [told[0::2], told[1::2]]
    found: list[list[Detection]] = []
    rated_images: list[LabelledImage] = []
    for half in halves:
        keys = {image.key for image in half}
        numbers = [n for n, (image, _) in enumerate(data.views) if image.key not in keys]
        if not half or len(numbers) == len(data.views):
            continue
        trained = with_adapter(detector, new, width, data.options.seed)
        train_adapter(trained, data, numbers, steps)
        for image in half:
            found.append(detections_of(data.cache, trained, image, calibration.scales, LOWEST_SCORE))
            rated_images.append(image)
    common = float(np.mean(list(calibration.even.values()))) if calibration.even else 0.5
    even = dict(calibration.even)
    for category in new:
        scores, hits, objects = rated(found, rated_images, category)
        own = best_threshold(threshold_curve(scores, hits, objects)) if objects else common
        weight = objects / (objects + _PRIOR_OBJECTS)
        even[category] = round(weight * own + (1 - weight) * common, 3)
    return replace(calibration, even=even)


def rated(
    detections: Sequence[Sequence[Detection]], images: Sequence[LabelledImage], category: str
) -> tuple[list[float], list[bool], int]:
    """Scores of ``category``, whether each finds a labelled object, and the number of labelled objects.

    Where only some objects are labelled, a detection beside them says nothing and is left out.
    """
    scores: list[float] = []
    hits: list[bool] = []
    objects = 0
    for found, image in zip(detections, images, strict=True):
        free = [item.box for item in image.objects if item.category == category]
        partly = bool(free) and category not in image.complete
        objects += len(free)
        for detection in found:
            if detection.category != category:
                continue
            best = max(free, key=detection.box.iou, default=None)
            hit = best is not None and detection.box.iou(best) >= MATCH_IOU
            if hit and best is not None:
                free.remove(best)
            if hit or not partly:
                scores.append(detection.score)
                hits.append(hit)
    return scores, hits, objects


def _names(image: LabelledImage) -> set[str]:
    return {item.category for item in image.objects}
