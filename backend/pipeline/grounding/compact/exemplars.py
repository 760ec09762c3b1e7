"""Find more like this with the compact detector: its features say what looks alike, its box head where it ends.

The head that measures boxes was trained on all categories at once and knows none: at the middle of an object that the
detector has never seen it still gives the object's box. What is an object of the wanted category is decided by ridge
regressions over what cells look like (``cells``), closed in form (``exemplar_rule``): the accepted objects' middles
against the images' background and against what was rejected.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from backend.bounded_cache import BoundedCache
from backend.pipeline.grounding.compact.cells import Array, Cells, cells_of
from backend.pipeline.grounding.compact.detections import Detection
from backend.pipeline.grounding.compact.exemplar_rule import (
    Rule,
    best_of,
    fitted,
    ious,
    triangle,
    window_side,
    with_threshold,
)
from backend.pipeline.grounding.compact.grounder import CompactGrounder
from backend.pipeline.grounding.compact.network import Calibration
from backend.pipeline.grounding.exemplars import ExemplarMatcher, Lesson, Lessons, digest
from backend.pipeline.types import Grounding, GroundingResult, Image, Likeness, NamedImage, hash_image
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.query import Query
from dataset_tools.geometry import Box, Point

__all__ = ["CompactMatcher", "GrounderWithExemplars"]

_MIDDLE = 0.2
"""Cells whose centre is nearer to an object's than this share of its longer side, along each axis, are its middle."""
_FITS = 0.5
"""IoU of a cell's box with the object from which it counts as its own."""
_HARD, _SEARCHES = 48, 2
"""How many places that look like an object and are none are kept of an image, in each of so many searches."""
_SAME = 0.6
"""Where not all objects are outlined, what scores higher is no counter-example."""
_BACKGROUND_CELLS = 4000
_LOWEST = 0.05
_SIZES = 12
"""Of so many examples the sizes are told to the segmenter."""


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
        self._encoder = f"compact-exemplars-4-{state.hexdigest()[:16]}"
        self._rules: BoundedCache[str, Rule] = BoundedCache(4_000_000)
        self._kept: tuple[weakref.ref[Image], Cells] | None = None

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
        ``mean`` [D], ``moments`` and ``sized`` (``triangle``) of the descriptors' two parts, and ``cells`` [1];
        ``hard`` float16[M, D], what of it looks most like an object; ``most`` [1], how many objects there are;
        ``sizes`` [N, 2], (width, height) of each; ``peaks`` float16[N, D], what of each object's middle looks most like
        one, as what is found in another image does.
        """
        cells = self._cells(image)
        near = np.zeros(len(cells.boxes), bool)
        for box in objects:
            near |= ious(np.array(box, np.float32), cells.boxes) > 0.1
        rest = np.flatnonzero(~near)
        drawn = np.random.default_rng(0).permutation(rest)[:_BACKGROUND_CELLS]
        sizes = np.array([(box.width, box.height) for box in objects], np.float32).reshape(-1, 2)
        side = window_side(sizes)
        background = cells.described(drawn, side).astype(np.float64)
        look, around = np.split(background, [cells.features.shape[1]], axis=1)
        lesson: dict[str, npt.NDArray[np.floating]] = {
            "objects": self._middles(cells, objects, side),
            "others": self._middles(cells, others, side),
            "hard": np.zeros((0, cells.dimensions), np.float32),
            "mean": background.mean(axis=0).astype(np.float32),
            "moments": triangle(look.T @ look / max(1, len(drawn))),
            "sized": triangle(around.T @ around / max(1, len(drawn))),
            "cells": np.array([len(drawn)], np.float32),
            "most": np.array([len(objects)], np.float32),
            "sizes": sizes,
        }
        for _ in range(_SEARCHES if len(lesson["objects"]) else 0):
            scores = fitted([lesson]).scores_of(cells)
            scores[near] = -np.inf
            if not complete:
                scores[scores > _SAME] = -np.inf  # they may be objects that nobody has outlined yet
            found = best_of(cells.boxes, scores, scores.max() + 0.1, _HARD)
            described = cells.described(np.array(found, np.int64), side)
            lesson["hard"] = np.concatenate([lesson["hard"], described])
        peaks: Array = np.zeros((0, cells.dimensions), np.float32)
        if len(lesson["objects"]):
            scores = fitted([lesson]).scores_of(cells)
            best = [middle[np.argmax(scores[middle])] for middle in self._around(cells, objects) if len(middle)]
            peaks = cells.described(np.array(best, np.int64), side)
        return {**lesson, "hard": lesson["hard"].astype(np.float16), "peaks": peaks.astype(np.float16)}

    def find(self, image: Image, lessons: Lessons, *, key: str | None = None) -> tuple[Grounding, ...]:  # noqa: ARG002
        """See ``ExemplarMatcher``."""
        cells = None
        found: list[Grounding] = []
        for category, taught in lessons.items():
            rule = self._rule(category, taught)
            if rule is None:
                continue
            cells = cells or self._cells(image)
            sizes = _some(rule.sizes)
            scores = rule.scores_of(cells)
            for index in best_of(cells.boxes, scores, rule.threshold, rule.most):
                box = Box(*cells.boxes[index].tolist()).clip(image.shape[1], image.shape[0])
                probability = float(rule.probability(scores[index : index + 1])[0])
                if box.width >= 1 and box.height >= 1 and probability >= _LOWEST:
                    like = Likeness(Point(*cells.centers[index].tolist()), sizes)
                    found.append(Grounding(box, probability, category, like=like))
        return tuple(sorted(found, key=lambda one: -one.score))

    def extended(self, lessons: Lessons) -> GrounderWithExemplars:
        """See ``ExemplarMatcher``."""
        return GrounderWithExemplars(self._grounder, self, lessons)

    def _cells(self, image: Image) -> Cells:
        """Those of the last image are kept as long as somebody holds its pixels: lessons about several categories, and
        what earlier ones would have found, look at one image.
        """
        kept = self._kept
        if kept is not None and kept[0]() is image:
            return kept[1]
        cells = cells_of(self._detector, self._scales, image, bfloat16=self._bfloat16)
        self._kept = (weakref.ref(image, self._forget), cells)
        return cells

    def _forget(self, gone: weakref.ref[Image]) -> None:
        kept = self._kept
        if kept is not None and kept[0] is gone:
            self._kept = None

    def _rule(self, category: str, taught: Sequence[Lesson]) -> Rule | None:
        taught = [lesson for lesson in taught if len(lesson["mean"])]
        if not any(len(lesson["objects"]) for lesson in taught):
            return None
        name = digest({category: taught})
        rule = self._rules.get(name)
        if rule is None:
            rule = with_threshold(taught)
            self._rules.put(name, rule, rule.weights.nbytes + rule.sizes.nbytes)
        return rule

    def _middles(self, cells: Cells, boxes: Sequence[Box], side: float) -> Array:
        """Mean descriptor of the middle of each box, of the cells whose own box fits best; float32[<= N, D]."""
        groups = []
        for box, middle in zip(boxes, self._around(cells, boxes), strict=True):
            fits = ious(np.array(box, np.float32), cells.boxes[middle])
            best = float(fits.max(initial=0.0))
            if best > 0:
                groups.append(middle[fits >= (best if best < _FITS else max(_FITS, best - 0.15))])
        if not groups:
            return np.zeros((0, cells.dimensions), np.float32)
        described = cells.described(np.concatenate(groups), side)
        ends = np.cumsum([len(group) for group in groups])[:-1]
        return np.array([group.mean(axis=0) for group in np.split(described, ends)], np.float32)

    @staticmethod
    def _around(cells: Cells, boxes: Sequence[Box]) -> list[npt.NDArray[np.int64]]:
        """The cells in the middle of each box."""
        found = []
        for box in boxes:
            reach = max(4.0, _MIDDLE * max(box.width, box.height))
            near = (np.abs(cells.centers - np.array(box.center, np.float32)) <= reach).all(axis=1)
            found.append(np.flatnonzero(near))
        return found


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
        self._matches: BoundedCache[str, tuple[Grounding, ...]] = BoundedCache(4_000_000)

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
        slope = self.calibration.slope
        found = (Detection(m.box, m.category or "", _score(m.score, slope)) for m in self._like(image, key))
        return tuple(sorted((*self._base.detections(image, key=key), *found), key=lambda one: -one.score))

    def object_at(self, point: Point, names: Iterable[str], image: NamedImage) -> Box | None:
        """As the grounder's, for what it knows: the lessons would cost a click a look of their own."""
        return self._base.object_at(point, names, image)

    def ground(
        self, image: Image, expression: str, *, key: str | None = None, labels: Collection[str] = ()
    ) -> GroundingResult:
        """As the grounder's; what was found by lessons says so (``Grounding.like``)."""
        key = key or hash_image(image)
        answer = super().ground(image, expression, key=key, labels=labels)
        abstained = answer.abstention
        named = (*answer.groundings, *(abstained.candidates if abstained else ()))
        if not any(one.category in self.lessons for one in named):
            return answer
        known = {(one.box, one.category): one.like for one in self._like(image, key)}

        def said(groundings: Sequence[Grounding]) -> tuple[Grounding, ...]:
            return tuple(replace(one, like=known.get((one.box, one.category))) for one in groundings)

        if abstained is not None:
            return replace(answer, abstention=replace(abstained, candidates=said(abstained.candidates)))
        return replace(answer, groundings=said(answer.groundings))

    def _like(self, image: Image, key: str) -> tuple[Grounding, ...]:
        """What looks like the lessons' objects; kept for the image's next expression."""
        found = self._matches.get(key)
        if found is None:
            found = self._matcher.find(image, self.lessons, key=key)
            self._matches.put(key, found, 512 * (1 + len(found)))
        return found


def _some(sizes: Array) -> tuple[tuple[float, float], ...]:
    """Of ``sizes`` [N, 2], (width, height) of the lessons' objects, a few that stand for all."""
    sizes = sizes[np.lexsort((sizes[:, 1], sizes[:, 0], sizes.prod(axis=1)))]
    some = np.unique(np.linspace(0, len(sizes) - 1, _SIZES).round().astype(int))
    return tuple((max(1.0, float(width)), max(1.0, float(height))) for width, height in sizes[some])


def _score(probability: float, slope: float) -> float:
    """The detector's score that ``Calibration.probability`` takes for this probability, with even odds at a half."""
    odds = probability / max(1e-6, 1 - probability)
    return float(odds ** (1 / slope) / (1 + odds ** (1 / slope)))
