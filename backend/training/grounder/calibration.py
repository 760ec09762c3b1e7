"""Thresholds of the compact grounder, chosen on validation images, and the file it ships as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from backend.pipeline.grounding.compact.detections import Detection, detect
from backend.pipeline.grounding.compact.detector_file import save_detector
from backend.pipeline.grounding.compact.network import Calibration, Detector, DetectorConfig
from backend.training.grounder.data import TrainingImage
from backend.training.grounder.evaluation import LOWEST_SCORE, matched
from backend.training.run import IMAGENET, read_weights
from dataset_tools.errors import WeightsError

_THRESHOLDS = np.round(np.arange(0.08, 0.71, 0.01), 2)
_PRIOR_OBJECTS = 20
"""A category's own best threshold counts as much as that of all categories together when it has so many objects."""


def calibrate(
    detections: Sequence[Sequence[Detection]],
    images: Sequence[TrainingImage],
    categories: Sequence[str],
    scales: Sequence[int],
    mirrored: int = 0,
) -> Calibration:
    """Scores to probabilities, and the probability from which an expression is answered.

    Per category, the score with the best F1 over ``images`` counts as even odds, drawn towards the best common one: few
    objects say little about a threshold, so with n of them the category's own has the weight n / (n +
    ``_PRIOR_OBJECTS``). The slope is the logistic regression of "is an object" on the score's distance from it. The
    probability to answer from is the one at which images with and without a category are told apart best.
    """
    rated = {category: _rated(detections, images, category) for category in categories}
    curves = {category: threshold_curve(*rated[category]) for category in categories}
    common = best_threshold(np.stack(list(curves.values())).sum(axis=0))
    even = {}
    for category, curve in curves.items():
        objects = rated[category][2]
        weight = objects / (objects + _PRIOR_OBJECTS)
        even[category] = round(float(weight * best_threshold(curve) + (1 - weight) * common), 3)
    plain = Calibration(even)
    logits, hits = [], []
    for category, (scores, correct, _) in rated.items():
        logits += [_log_odds(plain.probability(category, score)) for score in scores]
        hits += correct
    slope = round(_slope(np.array(logits), np.array(hits)), 3)
    calibration = Calibration(even, slope, 0.5, tuple(scales), mirrored)
    return replace(calibration, answer=_answer_from(calibration, detections, images))


def _answer_from(
    calibration: Calibration, detections: Sequence[Sequence[Detection]], images: Sequence[TrainingImage]
) -> float:
    """The probability that balances unanswered categories of an image against answers for absent ones."""
    best: dict[bool, list[float]] = {True: [], False: []}
    for found, image in zip(detections, images, strict=True):
        present = {name for item in image.objects for name in (item.category, item.kind)}
        for category in calibration.even:
            if image.knows(category):
                likeliest = max((d.score for d in found if d.category == category), default=0.0)
                best[category in present].append(calibration.probability(category, likeliest))
    if not best[True] or not best[False]:
        return 0.5
    steps = np.round(np.arange(0.2, 0.81, 0.01), 2)
    missed = (np.array(best[True])[None] < steps[:, None]).mean(axis=1)
    invented = (np.array(best[False])[None] >= steps[:, None]).mean(axis=1)
    error = missed + invented
    return float(np.median(steps[error <= error.min() + 1e-9]).round(2))


def export(run: Path, config: Mapping[str, Any], images: Sequence[TrainingImage]) -> Path:
    """Calibrate the best weights of the training run in the folder ``run`` and write ``run/model.safetensors``.

    Args:
        run: folder of a training run.
        config: the run's config; ``config["scales"]`` are the scales to read images at, ``config["mirrored"]``
            (0) in how many of them the mirror image is read too. With ``average_with_init`` the
            mean with the weights that it started from is taken ("Model soups", arXiv 2203.05482).
        images: to choose thresholds on: validation images, with many more objects also training images.

    Raises:
        WeightsError: the run has no best weights yet, or they have other sizes than the config says.
    """
    source = run / "best.safetensors"
    if not source.is_file():
        raise WeightsError(f"{run} has no best.safetensors yet; train until the first validation")
    detector = Detector(DetectorConfig.of(config["detector"]))
    tensors = load_file(source)
    if (share := config.get("average_with_init", 0.0)) and config.get("init") not in (None, IMAGENET):
        before = read_weights(Path(config["init"]))
        tensors = {
            name: value.lerp(before[name].to(value), share) if value.is_floating_point() else value
            for name, value in tensors.items()
        }
    try:
        detector.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(
            f"{source} does not fit the config's detector sizes {config['detector']}: {error}"
        ) from error
    detector = detector.eval().to(memory_format=torch.channels_last)
    scales, mirrored = config["scales"], config.get("mirrored", 0)
    found = [
        detect(detector, image.image, scales, LOWEST_SCORE, mirrored=mirrored, bfloat16=config["bfloat16"])
        for image in images
    ]
    target = run / "model.safetensors"
    save_detector(detector, calibrate(found, images, detector.config.categories, scales, mirrored), target)
    return target


def _rated(
    detections: Sequence[Sequence[Detection]], images: Sequence[TrainingImage], category: str
) -> tuple[list[float], list[bool], int]:
    """All detections' scores of ``category``, whether each finds an object not found yet, and the number of objects."""
    scores, hits, objects = [], [], 0
    for found, image in zip(detections, images, strict=True):
        if not image.knows(category):
            continue
        truth = image.boxes_of(category)
        objects += len(truth)
        ranked = sorted((d for d in found if d.category == category), key=lambda d: -d.score)
        scores += [detection.score for detection in ranked]
        hits += matched([detection.box for detection in ranked], truth)
    return scores, hits, objects


def threshold_curve(scores: Sequence[float], hits: Sequence[bool], objects: int) -> npt.NDArray[np.float64]:
    """[len(_THRESHOLDS), 3]: true positives, detections and objects at each threshold."""
    above = np.array(scores, float)[None, :] >= _THRESHOLDS[:, None]
    found = (above & np.array(hits, bool)[None, :]).sum(axis=1)
    return np.stack([found, above.sum(axis=1), np.full(len(_THRESHOLDS), objects)], axis=1).astype(float)


def best_threshold(curve: npt.NDArray[np.float64]) -> float:
    """The threshold with the best F1 score; the middle of all that are within 0.005 of it."""
    f1 = 2 * curve[:, 0] / np.maximum(curve[:, 1] + curve[:, 2], 1)
    return float(np.median(_THRESHOLDS[f1 >= f1.max() - 0.005]))


def _slope(distances: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_]) -> float:
    """Slope in [0.5, 5] of the logistic regression without offset of ``hits`` on ``distances``."""
    slopes = np.arange(0.5, 5.01, 0.05)
    if not len(distances):
        return 1.0
    signed = np.where(hits, distances, -distances)
    likelihood = [-np.logaddexp(0, -slope * signed).sum() for slope in slopes]
    return float(slopes[int(np.argmax(likelihood))])


def _log_odds(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
