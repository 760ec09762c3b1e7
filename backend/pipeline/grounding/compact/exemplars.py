"""Find more like this with the compact detector: its features say what looks alike, its box head where it ends.

The head that measures boxes was trained on all categories at once and knows none: at the middle of an object that the
detector has never seen it still gives the object's box. What is an object of the wanted category is decided by a ridge
regression over the features before the heat, closed in form: the accepted objects' middles against the images'
background (known by its moments only) and against what was rejected. As exemplar-LDA (arXiv's "Discriminative
decorrelation", ECCV 2012) it works from one object on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from backend.bounded_cache import BoundedCache
from backend.pipeline.grounding.compact.detections import Detection, cell_boxes, prepare, reading_sides
from backend.pipeline.grounding.compact.grounder import CompactGrounder
from backend.pipeline.grounding.compact.network import STRIDES, Calibration
from backend.pipeline.grounding.exemplars import ExemplarMatcher, Lesson, Lessons, digest
from backend.pipeline.types import Grounding, Image, hash_image
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.query import Query
from dataset_tools.geometry import Box

__all__ = ["CompactMatcher", "GrounderWithExemplars"]

Array = npt.NDArray[np.float32]
_MIDDLE = 0.2
"""Cells whose centre is nearer to an object's than this share of its longer side, along each axis, are its middle."""
_FITS = 0.5
"""IoU of a cell's box with the object from which it counts as its own."""
_HARD, _SEARCHES = 48, 2
"""How many places that look like an object and are none are kept of an image, in each of so many searches."""
_SAME = 0.6
"""Where not all objects are outlined, what scores higher is no counter-example."""
_BACKGROUND_CELLS = 4000
_SHRINKAGE = 0.1
_POSITIVE_WEIGHT, _OTHER_WEIGHT = 0.02, 0.2
"""Weight of the objects and of what was rejected against the background, in the regression."""
_PER_PROTOTYPE = 12
_MOST_PROTOTYPES = 4
_OBJECT = 0.9
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
_LOWEST = 0.05


@dataclass(frozen=True, eq=False)
class _Cells:
    """All cells of an image at all scales: descriptors float32[N, D], boxes float32[N, 4] and centres float32[N, 2],
    in pixels of the image.
    """

    features: Array
    boxes: Array
    centers: Array


@dataclass(frozen=True, eq=False)
class _Rule:
    """How a category is recognised: ``prototypes`` float32[K, D] of the regression on standardised descriptors."""

    mean: Array
    scale: Array
    prototypes: Array
    threshold: float
    most: int

    def scores(self, features: Array) -> Array:
        """float32[N]: 1 at objects, 0 at background."""
        values = ((features - self.mean) / self.scale) @ self.prototypes.T
        return np.asarray(values.max(axis=1), np.float32)

    def probability(self, scores: Array) -> Array:
        """In [0, 1]; a half at the threshold."""
        return np.asarray(1 / (1 + np.exp(-_STEEPNESS * (scores - self.threshold))), np.float32)


class CompactMatcher:
    """Implements ``ExemplarMatcher`` on the features of a compact grounder's detector."""

    def __init__(self, grounder: CompactGrounder) -> None:
        self._grounder = grounder
        self._detector = grounder.detector
        self._scales = grounder.calibration.scales
        self._bfloat16 = grounder.bfloat16
        state = hashlib.sha256()
        for name, value in sorted(self._detector.state_dict().items()):
            if not name.startswith(("adapter.", "semantic.")):
                state.update(name.encode() + value.cpu().numpy().tobytes())
        self._encoder = f"compact-exemplars-1-{state.hexdigest()[:16]}"
        self._rules: BoundedCache[str, _Rule] = BoundedCache(4_000_000)

    @property
    def encoder(self) -> str:
        """Depends on everything of the detector but its adapter."""
        return self._encoder

    def learn(
        self,
        image: Image,
        objects: Sequence[Box],
        others: Sequence[Box],
        *,
        complete: bool,
        key: str | None = None,  # noqa: ARG002 - the interface's
    ) -> Lesson:
        """See ``ExemplarMatcher``: ``objects`` and ``others`` float32[N, D], one descriptor for each; of the background
        ``mean`` [D], ``moments`` [D, D] and ``cells`` [1]; ``hard`` [M, D], what of it looks most like an object;
        ``most`` [1], how many objects there are.
        """
        cells = self._cells(image)
        near = np.zeros(len(cells.boxes), bool)
        for box in objects:
            near |= _ious(np.array(box, np.float32), cells.boxes) > 0.1
        rest = np.flatnonzero(~near)
        drawn = cells.features[np.random.default_rng(0).permutation(rest)[:_BACKGROUND_CELLS]].astype(np.float64)
        lesson = {
            "objects": self._middles(cells, objects),
            "others": self._middles(cells, others),
            "hard": np.zeros((0, cells.features.shape[1]), np.float32),
            "mean": drawn.mean(axis=0).astype(np.float32),
            "moments": (drawn.T @ drawn / max(1, len(drawn))).astype(np.float32),
            "cells": np.array([len(drawn)], np.float32),
            "most": np.array([len(objects)], np.float32),
        }
        for _ in range(_SEARCHES if len(lesson["objects"]) else 0):
            scores = _fitted([lesson]).scores(cells.features)
            scores[near] = -np.inf
            if not complete:
                scores[scores > _SAME] = -np.inf  # they may be objects that nobody has outlined yet
            found = _best(cells.boxes, scores, scores.max() + 0.1, _HARD)
            lesson["hard"] = np.concatenate([lesson["hard"], cells.features[found]])
        return lesson

    def find(self, image: Image, lessons: Lessons, *, key: str | None = None) -> tuple[Grounding, ...]:  # noqa: ARG002
        """See ``ExemplarMatcher``."""
        cells = None
        found: list[Grounding] = []
        for category, taught in lessons.items():
            rule = self._rule(category, taught)
            if rule is None:
                continue
            cells = cells or self._cells(image)
            scores = rule.scores(cells.features)
            for index in _best(cells.boxes, scores, rule.threshold, rule.most):
                box = Box(*cells.boxes[index].tolist()).clip(image.shape[1], image.shape[0])
                probability = float(rule.probability(scores[index : index + 1])[0])
                if box.width >= 1 and box.height >= 1 and probability >= _LOWEST:
                    found.append(Grounding(box, probability, category))
        return tuple(sorted(found, key=lambda one: -one.score))

    def extended(self, lessons: Lessons) -> GrounderWithExemplars:
        """See ``ExemplarMatcher``."""
        return GrounderWithExemplars(self._grounder, self, lessons)

    def _rule(self, category: str, taught: Sequence[Lesson]) -> _Rule | None:
        taught = [lesson for lesson in taught if len(lesson["mean"])]
        if not any(len(lesson["objects"]) for lesson in taught):
            return None
        name = digest({category: taught})
        rule = self._rules.get(name)
        if rule is None:
            rule = _with_threshold(taught)
            self._rules.put(name, rule, rule.prototypes.nbytes + 2 * rule.mean.nbytes)
        return rule

    def _middles(self, cells: _Cells, boxes: Sequence[Box]) -> Array:
        """Mean descriptor of the middle of each box, of the cells whose own box fits best; float32[<= N, D]."""
        found = []
        for box in boxes:
            ious = _ious(np.array(box, np.float32), cells.boxes)
            reach = max(4.0, _MIDDLE * max(box.width, box.height))
            middle = np.abs(cells.centers - np.array(box.center, np.float32)).max(axis=1) <= reach
            best = float(ious[middle].max(initial=0.0))
            chosen = middle & (ious >= min(_FITS, best) if best < _FITS else ious >= max(_FITS, best - 0.15))
            if best > 0:
                found.append(cells.features[chosen].mean(axis=0))
        return np.array(found, np.float32).reshape(-1, cells.features.shape[1])

    @torch.inference_mode()
    def _cells(self, image: Image) -> _Cells:
        detector = self._detector
        height, width = image.shape[:2]
        parts: list[list[Array]] = [[], [], []]
        for side in reading_sides(self._scales, max(height, width)):
            factor = side / max(height, width)
            inputs = prepare(image, factor).to(detector.mean.device)
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self._bfloat16):
                pyramid = detector.pyramid(inputs)
                sides = detector.sides(pyramid)
                looks = [
                    functional.relu(norm(detector.heat.conv(level)))
                    for norm, level in zip(detector.heat.norms, pyramid, strict=True)
                ]
            picture = inputs[0].permute(1, 2, 0).cpu().numpy() / np.float32(64)
            for stride, look, level_sides in zip(STRIDES, looks, sides, strict=True):
                rows, columns = look.shape[-2:]
                boxes = cell_boxes(level_sides[:, :4].float(), stride)[0].flatten(1).T.cpu().numpy() / factor
                y, x = np.divmod(np.arange(rows * columns), columns)
                centers = np.stack([x + 0.5, y + 0.5], axis=1).astype(np.float32) * np.float32(stride / factor)
                inside = (centers[:, 0] < width) & (centers[:, 1] < height)
                colors = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA).reshape(-1, 3)
                areas = np.clip((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1, None)
                described = (look[0].float().flatten(1).T.cpu().numpy(), colors, 0.5 * np.log(areas)[:, None])
                parts[0].append(np.concatenate(described, axis=1).astype(np.float32)[inside])
                parts[1].append(boxes.astype(np.float32)[inside])
                parts[2].append(centers[inside])
        return _Cells(*map(np.concatenate, parts))


def matcher_of(grounder: CompactGrounder) -> CompactMatcher:
    """The matcher on the features of ``grounder``'s detector."""
    return CompactMatcher(grounder)


class GrounderWithExemplars(CompactGrounder):
    """A compact grounder that also finds what lessons show, and understands their categories as nouns.

    Args:
        grounder: what it knows already; a category of the lessons that it knows is left to it.
        matcher: finds what the lessons show.
        lessons: by category.
    """

    def __init__(self, grounder: CompactGrounder, matcher: ExemplarMatcher, lessons: Lessons) -> None:
        own = {name: taught for name, taught in lessons.items() if name not in grounder.known_categories}
        even = {**grounder.calibration.even, **dict.fromkeys(own, 0.5)}
        calibration: Calibration = replace(grounder.calibration, even=even)
        super().__init__(grounder.detector, calibration, bfloat16=grounder.bfloat16)
        self._base, self._matcher, self.lessons = grounder, matcher, own
        self._matches: BoundedCache[str, tuple[Detection, ...]] = BoundedCache(4_000_000)

    @property
    def known_categories(self) -> frozenset[str]:
        """What the grounder knows, and what the lessons show."""
        return self._base.known_categories | self.lessons.keys()

    def detections_for(self, query: Query, image: Image, *, key: str | None = None) -> tuple[Detection, ...]:
        """Those of the grounder, with what the lessons show only where ``query`` may be about that: it costs a look at
        the image of its own.
        """
        if query.category is None or self.lessons.keys() & {*Candidates.categories_of(query), *query.target_categories}:
            return self.detections(image, key=key)
        return self._base.detections_for(query, image, key=key)

    def detections(self, image: Image, *, key: str | None = None) -> tuple[Detection, ...]:
        """What the grounder finds and what looks like the lessons' objects, best first."""
        key = key or hash_image(image)
        found = self._matches.get(key)
        if found is None:
            slope = self.calibration.slope
            matches = self._matcher.find(image, self.lessons, key=key)
            found = tuple(Detection(m.box, m.category or "", _score(m.score, slope)) for m in matches)
            self._matches.put(key, found, 256 * (1 + len(found)))
        return tuple(sorted((*self._base.detections(image, key=key), *found), key=lambda one: -one.score))


def _score(probability: float, slope: float) -> float:
    """The detector's score that ``Calibration.probability`` takes for this probability, with even odds at a half."""
    odds = probability / max(1e-6, 1 - probability)
    return float(odds ** (1 / slope) / (1 + odds ** (1 / slope)))


def _with_threshold(taught: Sequence[Lesson]) -> _Rule:
    """The rule of all lessons, its threshold from how rules of the other lessons rate the objects of each."""
    objects: list[float] = []
    others: list[float] = []
    holding = [n for n, lesson in enumerate(taught) if len(lesson["objects"])]
    for left_out in holding if len(holding) > 1 else ():
        rule = _fitted([lesson for n, lesson in enumerate(taught) if n != left_out])
        lesson = taught[left_out]
        objects += rule.scores(lesson["objects"]).tolist()
        others += rule.scores(np.concatenate([lesson["others"], lesson["hard"]])).tolist()
    rule = _fitted(taught)
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


def _fitted(taught: Sequence[Lesson]) -> _Rule:
    counts = np.array([float(lesson["cells"][0]) for lesson in taught])
    most = max(_CROWD_FLOOR, _CROWD * int(max(lesson["most"][0] for lesson in taught)))
    mean = np.average([lesson["mean"] for lesson in taught], axis=0, weights=counts)
    moments = np.average([lesson["moments"] for lesson in taught], axis=0, weights=counts)
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
    return _Rule(
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


def _best(boxes: Array, scores: Array, threshold: float, most: int) -> list[int]:
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
        alive &= _ious(boxes[index], boxes[order]) <= _OVERLAP
    return kept


def _ious(box: Array, others: Array) -> Array:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-6), np.float32)
