"""What the scores of learnt categories mean, from labels that their training has not seen; the others stay.

Cross-fitting: the labelled images are dealt into two halves, an adapter is trained on each, and rates the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backend.pipeline.grounding.compact.detections import Detection
from backend.pipeline.grounding.compact.network import Calibration, Detector
from backend.training.adapter.training import AdapterData, train_adapter, with_adapter
from backend.training.adapter.views import detections_of
from backend.training.grounder.calibration import best_threshold, threshold_curve
from backend.training.grounder.evaluation import LOWEST_SCORE, MATCH_IOU
from dataset_tools.labelled import LabelledImage

__all__ = ["FIRST_EVEN", "cross_fitted", "rated"]

FIRST_EVEN = 0.16
"""Least score of even odds of a new category, and its score while few of its objects are found: adapters that saw few
are timid. Not less, since images in which only some objects are labelled show hits and no false alarms. Chosen on
expressions about categories with 3 to 30 labelled objects (docs/active_learning.md)."""
_PRIOR_NEW, _PRIOR_KNOWN = 5, 20
"""Found objects with which a category's own threshold counts as much as ``FIRST_EVEN``, or as what it was before."""


def cross_fitted(
    detector: Detector,
    calibration: Calibration,
    data: AdapterData,
    new: Sequence[str],
    further: Sequence[str],
    width: int,
    steps: int,
) -> Calibration:
    """``calibration`` with the score of even odds for each of ``new`` and ``further``.

    Args:
        detector: without adapter.
        calibration: its own.
        data: what the adapter is trained on.
        new: categories that ``detector`` does not know.
        further: categories that it knows and that the adapter learns further.
        width: of the adapters.
        steps: of their trainings.
    """
    images = list({image.key: image for image, _ in data.project}.values())
    learnt = {*new, *further}
    told = [image for image in images if learnt & (image.complete | {item.category for item in image.objects})]
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
            found.append(
                detections_of(
                    data.cache, trained, image, calibration.scales, LOWEST_SCORE, mirrored=calibration.mirrored
                )
            )
            rated_images.append(image)
    even = dict(calibration.even)
    for category in (*new, *further):
        scores, hits, objects = rated(found, rated_images, category)
        before, prior = (even[category], _PRIOR_KNOWN) if category in further else (FIRST_EVEN, _PRIOR_NEW)
        # Where nothing was found no threshold is better than another.
        own = best_threshold(threshold_curve(scores, hits, objects)) if any(hits) else before
        own = max(own, FIRST_EVEN) if category in new else own
        weight = sum(hits) / (sum(hits) + prior)
        even[category] = round(weight * own + (1 - weight) * before, 3)
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
