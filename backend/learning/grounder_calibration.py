"""Thresholds of the compact grounder, chosen on validation images, and the file it ships as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from backend.errors import WeightsError
from backend.learning.grounder_data import TrainingImage
from backend.learning.grounder_evaluation import MATCH_IOU
from backend.pipeline.grounding.detections import Detection, detect
from backend.pipeline.grounding.detector import (
    Calibration,
    Detector,
    DetectorConfig,
    save_detector,
)

LOWEST_SCORE = 0.05
_THRESHOLDS = np.round(np.arange(0.10, 0.71, 0.01), 2)
_PRIOR_OBJECTS = 20
"""A category's own best threshold counts as much as that of all categories together when it has so many objects."""
_SUPPORT_FACTOR = 0.6


def calibrate(
    detections: Sequence[Sequence[Detection]],
    images: Sequence[TrainingImage],
    categories: Sequence[str],
    scales: Sequence[int],
) -> Calibration:
    """Per category, the threshold with the best F1 score over ``images``, drawn towards the best common one.

    Few objects say little about a threshold: with n of them the category's own one has the weight
    n / (n + ``_PRIOR_OBJECTS``). The support threshold is a fixed share of the answer threshold.
    """
    curves = {category: _counts(detections, images, category) for category in categories}
    common = _best(np.stack(list(curves.values())).sum(axis=0))
    answer = {}
    for category, counts in curves.items():
        objects = counts[0, 2]
        weight = objects / (objects + _PRIOR_OBJECTS)
        own = _best(counts) if objects else common
        answer[category] = round(float(weight * own + (1 - weight) * common), 3)
    support = {category: round(value * _SUPPORT_FACTOR, 3) for category, value in answer.items()}
    return Calibration(answer, support, tuple(scales))


def export(run: Path, config: Mapping[str, Any], images: Sequence[TrainingImage]) -> Path:
    """Calibrate the best weights of the training run in the folder ``run`` and write ``run/model.safetensors``.

    Args:
        run: folder of a training run.
        config: the run's config; ``config["scales"]`` are the scales to read images at.
        images: the validation images.

    Raises:
        WeightsError: the run has no best weights yet, or they have other sizes than the config says.
    """
    source = run / "best.safetensors"
    if not source.is_file():
        raise WeightsError(f"{run} has no best.safetensors yet; train until the first validation")
    detector = Detector(DetectorConfig.of(config["detector"]))
    try:
        detector.load_state_dict(load_file(source))
    except RuntimeError as error:
        raise WeightsError(
            f"{source} does not fit the config's detector sizes {config['detector']}: {error}"
        ) from error
    detector.eval()
    found = [detect(detector, image.image, config["scales"], LOWEST_SCORE) for image in images]
    target = run / "model.safetensors"
    save_detector(detector, calibrate(found, images, detector.config.categories, config["scales"]), target)
    return target


def _counts(
    detections: Sequence[Sequence[Detection]], images: Sequence[TrainingImage], category: str
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[len(_THRESHOLDS), 3]: true positives, detections and objects of ``category`` at each threshold."""
    scores, hits, objects = [], [], 0
    for found, image in zip(detections, images, strict=True):
        if image.unlabelled.get(category, 1.0) == 0:
            continue
        truth = [item.box for item in image.objects if item.category == category]
        objects += len(truth)
        free = set(range(len(truth)))
        for detection in sorted((d for d in found if d.category == category), key=lambda d: -d.score):
            best = max(free, key=lambda k: detection.box.iou(truth[k]), default=None)
            hit = best is not None and detection.box.iou(truth[best]) >= MATCH_IOU
            if hit and best is not None:
                free.discard(best)
            scores.append(detection.score)
            hits.append(hit)
    above = np.array(scores, float)[None, :] >= _THRESHOLDS[:, None]
    return np.stack(
        [
            (above & np.array(hits, bool)[None, :]).sum(axis=1),
            above.sum(axis=1),
            np.full(len(_THRESHOLDS), objects),
        ],
        axis=1,
    ).astype(float)


def _best(counts: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """The threshold with the best F1 score; the middle of all that are within 0.005 of it."""
    f1 = 2 * counts[:, 0] / np.maximum(counts[:, 1] + counts[:, 2], 1)
    return float(np.median(_THRESHOLDS[f1 >= f1.max() - 0.005]))
