"""How a category is recognised from its first objects: ridge regressions of objects against all else, and a threshold.

Closed in form; as exemplar-LDA ("Discriminative decorrelation", ECCV 2012) it works from one object on. Background is
known by its moments only. Each part of the description has a regression of its own, and their weighted mean decides:
the two err at different places, and the backbone's part, which knows nothing of objects, wants several to be of use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from backend.pipeline.grounding.compact.cells import Array, Cells
from backend.pipeline.grounding.exemplars import Lesson

__all__ = ["PARTS", "Rule", "best_of", "fitted", "ious", "triangle", "window_side", "with_threshold"]

PARTS = ("moments", "sized")
"""Of a lesson, the background's moments of both parts of the descriptors, in their order."""

_SHRINKAGE = 0.1
_POSITIVE_WEIGHT, _OTHER_WEIGHT = 0.1, 0.1
"""Weight of the objects and of what was rejected against the background, in the regression."""
_AROUND, _AROUND_WORTH = 0.5, 3.0
"""Most weight of what the backbone says of the window, of which so many objects give it half."""
_FIRST, _EACH = 0.72, 0.08
"""Threshold after one object, where the mean accepted one is at 1 and the background at 0, and what it rises by as
their number grows e-fold: the surer the direction, the more of an unseen object lies along it.
"""
_THRESHOLD_WORTH = 40.0
"""So many accepted objects set the threshold as much as the usual one does."""
_THRESHOLDS = (0.3, 1.3)
_CROWD, _CROWD_FLOOR = 3, 10
"""An image holds at most so many times the objects of any that was taught; but so many are always allowed."""
_SHARE = 0.7
"""Side of the window that says what an object looks like, as a share of the root of the objects' area."""
_ANY_SIDE = 24.0
"""Side in pixels where there is no object yet."""
_STEEPNESS = 8.0
_PEAKS = 400
"""Cells looked at, in twenties."""
_OVERLAP = 0.4


@dataclass(frozen=True, eq=False)
class Rule:
    """How a category is recognised: the score of a descriptor float32[D] is ``weights`` float32[D] times it, less
    ``offset``. ``sizes`` float32[N, 2] of the objects, (width, height).
    """

    weights: Array
    offset: float
    sizes: Array
    threshold: float
    most: int

    def scores(self, features: Array) -> Array:
        """float32[N] of descriptors [N, D]: 1 at objects, 0 at background."""
        return np.asarray(features @ self.weights - self.offset, np.float32)

    def scores_of(self, cells: Cells) -> Array:
        """float32[N] of all cells of an image, the objects' surroundings taken as large as the lessons' objects are."""
        return cells.weighted(self.weights, window_side(self.sizes)) - np.float32(self.offset)

    def probability(self, scores: Array) -> Array:
        """In [0, 1]; a half at the threshold."""
        return np.asarray(1 / (1 + np.exp(-_STEEPNESS * (scores - self.threshold))), np.float32)


def with_threshold(taught: Sequence[Lesson]) -> Rule:
    """The rule of all lessons, its threshold from how rules of the other lessons rate the objects of each.

    Both are rated where they look most like an object, as in an image that is searched: the mean of an object's middle
    scores less, and a threshold for that lets far too much through.
    """
    objects: list[float] = []
    others: list[float] = []
    holding = [n for n, lesson in enumerate(taught) if len(lesson["objects"])]
    for left_out in holding if len(holding) > 1 else ():
        rule = fitted([lesson for n, lesson in enumerate(taught) if n != left_out])
        lesson = taught[left_out]
        objects += rule.scores(lesson["peaks"]).tolist()
        others += rule.scores(np.concatenate([lesson["others"], lesson["hard"]])).tolist()
    rule = fitted(taught)
    if not objects:
        return rule
    own = _even(np.array(objects), np.array(others))
    weight = len(objects) / (len(objects) + _THRESHOLD_WORTH)
    return replace(rule, threshold=float(np.clip(weight * own + (1 - weight) * rule.threshold, *_THRESHOLDS)))


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
    """The rule of all lessons, at least one of them with an object, with the usual threshold for so many objects."""
    counts = np.array([float(lesson["cells"][0]) for lesson in taught])
    most = max(_CROWD_FLOOR, _CROWD * int(max(lesson["most"][0] for lesson in taught)))
    mean = np.average([lesson["mean"] for lesson in taught], axis=0, weights=counts)
    objects = np.concatenate([lesson["objects"] for lesson in taught]) - mean
    others = np.concatenate([lesson[name] for lesson in taught for name in ("others", "hard")]) - mean
    parts = []
    start = 0
    for name in PARTS:
        moments = _square(np.average([lesson[name] for lesson in taught], axis=0, weights=counts))
        part = slice(start, start := start + len(moments))
        covariance = moments - np.outer(mean[part], mean[part])
        parts.append(_regression(objects[:, part], others[:, part], covariance))
    around = _AROUND * len(objects) / (len(objects) + _AROUND_WORTH)
    weights = np.concatenate([(1 - around) * parts[0], around * parts[1]])
    sizes = np.concatenate([lesson["sizes"] for lesson in taught])
    usual = _FIRST + _EACH * math.log(max(1, len(objects)))
    return Rule(weights.astype(np.float32), float(weights @ mean), sizes, threshold=usual, most=most)


def _regression(
    objects: npt.NDArray[np.float64], others: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Weights float64[D] by which the objects' mean scores 1 where the background's, from which all are measured, is 0.

    One direction for all objects: the best of several, one for each group of objects that look alike, let through what
    looks like any of them a little.
    """
    scale = np.sqrt(np.clip(np.diag(covariance), 1e-6, None)) + 1e-3
    objects, others = objects / scale, others / scale
    system = (1 - _SHRINKAGE) * covariance / np.outer(scale, scale) + _SHRINKAGE * np.eye(len(scale))
    if len(others):
        system += _OTHER_WEIGHT * (others.T @ others) / (len(others) + 2)
    system += _POSITIVE_WEIGHT * (objects.T @ objects) / len(objects)
    target = objects.mean(axis=0)
    weights = np.linalg.solve(system, target)
    return np.asarray(weights / max(1e-6, float(weights @ target)) / scale)


def window_side(sizes: Array) -> float:
    """Side in pixels of the window that places are described by, for objects of ``sizes`` [N, 2]."""
    if not len(sizes):
        return _ANY_SIDE
    return max(1.0, _SHARE * float(np.median(np.sqrt(np.clip(sizes, 1, None).prod(axis=1)))))


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
