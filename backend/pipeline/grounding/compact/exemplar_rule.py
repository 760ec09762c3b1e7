"""How a category is recognised from its first objects: a ridge regression of objects against all else, and a threshold.

Closed in form; as exemplar-LDA ("Discriminative decorrelation", ECCV 2012) it works from one object on. Background is
known by its moments only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from backend.pipeline.grounding.compact.cells import Array
from backend.pipeline.grounding.exemplars import Lesson

__all__ = ["Rule", "best_of", "fitted", "ious", "triangle", "with_threshold"]

_SHRINKAGE = 0.1
_POSITIVE_WEIGHT, _OTHER_WEIGHT = 0.02, 0.2
"""Weight of the objects and of what was rejected against the background, in the regression."""
_PER_PROTOTYPE = 12
_MOST_PROTOTYPES = 4
_OBJECT = 0.7
"""What an unseen object may score, where the accepted ones are at 1 and the background at 0."""
_THRESHOLD_WORTH = 4.0
"""So many accepted objects set the threshold as much as that does."""
_THRESHOLDS = (0.3, 1.3)
_CROWD, _CROWD_FLOOR = 3, 10
"""An image holds at most so many times the objects of any that was taught; but so many are always allowed."""
_STEEPNESS = 8.0
_PEAKS = 400
"""Cells looked at, in twenties."""
_OVERLAP = 0.4


@dataclass(frozen=True, eq=False)
class Rule:
    """How a category is recognised: ``prototypes`` float32[K, D] of the regression on standardised descriptors."""

    mean: Array
    scale: Array
    prototypes: Array
    threshold: float
    most: int

    def scores(self, features: Array) -> Array:
        """float32[N]: 1 at objects, 0 at background."""
        weights = self.prototypes / self.scale  # in place of standardising a hundred thousand descriptors
        values = features @ weights.T - weights @ self.mean
        return np.asarray(values.max(axis=1), np.float32)

    def probability(self, scores: Array) -> Array:
        """In [0, 1]; a half at the threshold."""
        return np.asarray(1 / (1 + np.exp(-_STEEPNESS * (scores - self.threshold))), np.float32)


def with_threshold(taught: Sequence[Lesson]) -> Rule:
    """The rule of all lessons, its threshold from how rules of the other lessons rate the objects of each."""
    objects: list[float] = []
    others: list[float] = []
    holding = [n for n, lesson in enumerate(taught) if len(lesson["objects"])]
    for left_out in holding if len(holding) > 1 else ():
        rule = fitted([lesson for n, lesson in enumerate(taught) if n != left_out])
        lesson = taught[left_out]
        objects += rule.scores(lesson["objects"]).tolist()
        others += rule.scores(np.concatenate([lesson["others"], lesson["hard"]])).tolist()
    rule = fitted(taught)
    hard = np.concatenate([rule.scores(lesson["hard"]) for lesson in taught])
    # The rule has seen these: unseen ones score higher, and unseen objects lower than 1.
    common = 0.5 * (_OBJECT + max(0.2, float(hard.max(initial=0.2))))
    if not objects:
        return replace(rule, threshold=float(np.clip(common, *_THRESHOLDS)))
    own = _even(np.array(objects), np.array(others))
    weight = len(objects) / (len(objects) + _THRESHOLD_WORTH)
    return replace(rule, threshold=float(np.clip(weight * own + (1 - weight) * common, *_THRESHOLDS)))


def _even(objects: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> float:
    """The score above which objects are told from the rest best (largest F1); the highest of several such."""
    steps = np.unique(np.concatenate([objects, others[others >= objects.min()]]))
    found = (objects[None] >= steps[:, None]).sum(axis=1)
    false = (others[None] >= steps[:, None]).sum(axis=1)
    quality = 2 * found / (found + false + len(objects))
    best = int(len(steps) - 1 - np.argmax(quality[::-1]))
    below = np.concatenate([objects, others])
    below = below[below < steps[best]]
    return float((steps[best] + below.max()) / 2) if len(below) else float(steps[best]) * 0.8


def fitted(taught: Sequence[Lesson]) -> Rule:
    """The rule of all lessons, at least one of them with an object, with a threshold that nobody measured."""
    counts = np.array([float(lesson["cells"][0]) for lesson in taught])
    most = max(_CROWD_FLOOR, _CROWD * int(max(lesson["most"][0] for lesson in taught)))
    mean = np.average([lesson["mean"] for lesson in taught], axis=0, weights=counts)
    moments = _square(np.average([lesson["moments"] for lesson in taught], axis=0, weights=counts))
    covariance = moments - np.outer(mean, mean)
    scale = np.sqrt(np.clip(np.diag(covariance), 1e-6, None)) + 1e-3
    correlation = covariance / np.outer(scale, scale)
    objects = (np.concatenate([lesson["objects"] for lesson in taught]) - mean) / scale
    others = (np.concatenate([lesson[name] for lesson in taught for name in ("others", "hard")]) - mean) / scale
    system = (1 - _SHRINKAGE) * correlation + _SHRINKAGE * np.eye(len(mean))
    if len(others):
        system = system + _OTHER_WEIGHT * (others.T @ others) / (len(others) + 2)
    prototypes = []
    for members in _clusters(objects, system):
        target = members.mean(axis=0)
        within = system + _POSITIVE_WEIGHT * (members.T @ members) / len(members)
        weights = np.linalg.solve(within, target)
        prototypes.append(weights / max(1e-6, float(weights @ target)))
    return Rule(
        mean.astype(np.float32),
        scale.astype(np.float32),
        np.array(prototypes, np.float32),
        threshold=_OBJECT,
        most=most,
    )


def _clusters(objects: npt.NDArray[np.float64], system: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """The objects in groups that look alike, one prototype for each: K-means in the whitened space."""
    count = min(_MOST_PROTOTYPES, max(1, len(objects) // _PER_PROTOTYPE))
    if count == 1:
        return [objects]
    whitened = np.linalg.solve(np.linalg.cholesky(system), objects.T).T.astype(np.float32)
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 1e-4)
    _, labels, _ = cv2.kmeans(whitened, count, None, criteria, 4, cv2.KMEANS_PP_CENTERS)
    return [objects[labels.ravel() == number] for number in range(count) if (labels == number).any()]


def best_of(boxes: Array, scores: Array, threshold: float, most: int) -> list[int]:
    """Cells whose box repeats none of a better one, of those that are not hopeless; best first."""
    likely = np.flatnonzero(scores >= min(threshold, 1.0) - 0.35)
    order = likely[np.argsort(-scores[likely], kind="stable")][: 20 * _PEAKS]
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for place, index in enumerate(order):
        if not alive[place]:
            continue
        kept.append(int(index))
        if len(kept) == most:
            break
        alive &= ious(boxes[index], boxes[order]) <= _OVERLAP
    return kept


def ious(box: Array, others: Array) -> Array:
    """float32[N]: IoU of ``box`` float32[4] with each of ``others`` float32[N, 4]."""
    # Column by column: reductions over an axis of two are twenty times as slow, and every cell of an image is asked.
    x0, y0, x1, y1 = others.T
    width = np.clip(np.minimum(box[2], x1) - np.maximum(box[0], x0), 0, None)
    shared = width * np.clip(np.minimum(box[3], y1) - np.maximum(box[1], y0), 0, None)
    union = (box[2] - box[0]) * (box[3] - box[1]) + (x1 - x0) * (y1 - y0) - shared
    return np.asarray(shared / np.maximum(union, 1e-6), np.float32)


def triangle(moments: npt.NDArray[np.float64]) -> Array:
    """A symmetric matrix [D, D] as float32[D * (D + 1) / 2]: lessons are kept, and half of it is said twice."""
    return moments[np.triu_indices(len(moments))].astype(np.float32)


def _square(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The matrix of a ``triangle``."""
    dimensions = math.isqrt(2 * len(values))
    upper = np.zeros((dimensions, dimensions))
    upper[np.triu_indices(dimensions)] = values
    return upper + np.triu(upper, 1).T
