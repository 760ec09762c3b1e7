"""PSLG-SAM (arXiv 2506.10503): an image and a referring expression -> labelled masks.

Coarse localization -> foreground point -> mask -> boundary, in this order in ``PslgSam.prelabel``. Knows no HTTP.
"""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Literal

import numpy as np

from backend.pipeline.boundary import optimize_boundary
from backend.pipeline.config import EXEMPLARS, PipelineConfig
from backend.pipeline.foreground_points import foreground_point
from backend.pipeline.grounding import ExemplarFinder, Grounder, ObjectFinder
from backend.pipeline.grounding.exemplars import LIKE, ExemplarMatcher, Lessons, digest
from backend.pipeline.like_examples import best_outline, is_repeated
from backend.pipeline.scores import combine_scores
from backend.pipeline.segmentation import Outliner, Segmenter
from backend.pipeline.types import (
    Abstention,
    AbstentionCode,
    Box,
    Embedding,
    GroundedMask,
    Grounding,
    GroundingResult,
    Image,
    MaskPrediction,
    NamedImage,
    Point,
    Prelabel,
    Prelabels,
    Prompts,
)
from backend.work import spent
from dataset_tools.errors import ConfigError, ImageError, PromptError
from dataset_tools.expressions import parser as expression_parser

__all__ = ["OFFERING", "EmbedWindow", "PslgSam"]

OFFERING: tuple[AbstentionCode, ...] = ("ambiguous", "unknown-word")
"""Abstentions whose candidates may each be what was meant; those of others came close but do not fit."""

EmbedWindow = Callable[[Image, Box], Embedding]
"""Features of an image's window; a store's ``get or compute`` has this form."""


class PslgSam:
    """The pipeline of one config. Holds no state of its own between calls; the models are only read.

    Args:
        grounder: stage 1.
        segmenter: the promptable model of stage 2.
        config: which stages run, with which numbers.
        model_version: ``<config>-<8 hex>`` (``backend.pipeline.weights.model_version``).
        trained_version: the same without lessons, where the grounder has some.
    """

    def __init__(
        self,
        grounder: Grounder,
        segmenter: Segmenter,
        config: PipelineConfig,
        model_version: str,
        trained_version: str | None = None,
    ) -> None:
        self.grounder = grounder
        self.segmenter = segmenter
        self.config = config
        self.model_version = model_version
        self.trained_version = trained_version or model_version
        self._matcher: ExemplarMatcher | None = None
        self._lock = threading.Lock()

    def prelabel(
        self,
        image: Image,
        expression: str,
        *,
        default_category: str | None = None,
        key: str | None = None,
        embed: EmbedWindow | None = None,
        most: int | None = None,
        until: float = math.inf,
        candidates: int = 0,
        labels: Collection[str] = (),
        grounding: GroundingResult | None = None,
    ) -> Prelabels:
        """One labelled mask per object that ``expression`` describes, best first; or why there is none.

        Args:
            image: uint8[H, W, 3], RGB.
            expression: what to look for; "all the ..." may give several objects.
            default_category: canonical name for objects whose category neither grounder nor expression gives.
            key: names the image's content (its file's sha256, say), so that nothing hashes its pixels.
            embed: makes (or finds) the embeddings in place of ``self.embed``: where a caller wants to keep them.
            most, until: bounds, see ``segment``.
            candidates: so many objects at most are outlined as ``Prelabels.candidates`` where several may be meant (the
                answer is ``ambiguous`` or ``unknown-word``).
            labels: the project's own categories, see ``Grounder.ground``.
            grounding: what ``ground`` has found; None asks it now.

        Raises:
            ImageError: ``image`` is not uint8[H, W, 3] with at least one pixel.
        """
        _require_rgb(image)
        if not any(map(str.isalnum, expression)):
            return Prelabels((), Abstention("empty-expression", "The expression is empty: say what to look for."))
        grounding = grounding or self.ground(image, expression, key=key, labels=labels)
        abstained = grounding.abstention
        offered: tuple[Grounding, ...] = ()
        if abstained is not None and abstained.code in OFFERING:
            offered = abstained.candidates[:candidates]
        if any(found.category is None for found in (*grounding.groundings, *offered)):
            own = frozenset(self.grounder.known_categories or ()).union(labels)
            default_category = expression_parser.parse(expression, own).category or default_category
        outline = partial(
            self.segment,
            image,
            expression=expression,
            default_category=default_category,
            key=key,
            embed=embed,
            until=until,
        )
        if abstained is None:
            return outline(grounding.groundings, most=most)
        return Prelabels((), abstained, candidates=outline(offered).items if offered else ())

    @property
    def talks(self) -> Literal["here", "elsewhere"] | None:
        """Where the language model runs that is the grounder: in this process, or in one that is waited for."""
        elsewhere = getattr(self.grounder, "elsewhere", None)
        return None if elsewhere is None else "elsewhere" if elsewhere else "here"

    def ground(
        self, image: Image, expression: str, *, key: str | None = None, labels: Collection[str] = ()
    ) -> GroundingResult:
        """Coarse localization (stage 1): the boxes for ``expression``, or an abstention; ``key`` and ``labels`` as of
        ``prelabel``.
        """
        began = time.perf_counter()
        found = self.grounder.ground(image, expression, key=key, labels=labels)
        spent.get()["ground"] += time.perf_counter() - began
        return found

    def segment(
        self,
        image: Image,
        groundings: tuple[Grounding, ...],
        expression: str = "",
        *,
        default_category: str | None = None,
        key: str | None = None,
        embed: EmbedWindow | None = None,
        most: int | None = None,
        until: float = math.inf,
    ) -> Prelabels:
        """Fine segmentation (stage 2): one mask per box, in the order of ``groundings``.

        A box outside the image, or one whose mask comes out empty, gives no Prelabel; if that leaves none, the result
        abstains as ``absent``. Of more than ``most`` boxes the most certain ones are outlined; after the time ``until``
        (of ``time.monotonic``) no further one is, but always one. How many boxes that leaves out stands in the result.
        """
        _require_rgb(image)
        height, width = image.shape[:2]
        embedded = cache(partial(embed or partial(self.embed, key=key), image))
        stages = spent.get()
        prelabels: list[Prelabel] = []
        chosen = groundings if most is None else _most_certain(groundings, most)
        left_out = len(groundings) - len(chosen)
        inside = [(found, box) for found in chosen if (box := found.box.clip(width, height)).area > 0]
        categories = {found.category or default_category for found in chosen}
        pointed = set(filter(self.config.foreground_points.applies_to, categories))
        smoothed = set(filter(self.config.boundary.applies_to, categories))
        for number, (grounding, box) in enumerate(inside):
            if prelabels and time.monotonic() > until:
                left_out += len(inside) - number
                break
            category = grounding.category or default_category
            found: GroundedMask | MaskPrediction
            if self.config.mask_from == "grounder" and grounding.outline is not None:
                point, found = None, grounding.outline()
            else:
                point = foreground_point(image, box, self.config.foreground_points) if category in pointed else None
                found = self._outline(image, grounding, box, point, embedded)
            if grounding.like is not None:
                if is_repeated(found.mask, [item.mask for item in prelabels if item.category == category]):
                    continue
                box = Box.of_mask(found.mask) if found.mask.any() else box
            scores = {
                "grounding": grounding.score,
                "predicted_iou": found.predicted_iou,
                "stability": found.stability,
            }
            mask = found.mask
            if category in smoothed and mask.any():
                began = time.perf_counter()
                optimized = optimize_boundary(image, mask, self.config.boundary)
                stages["boundary"] += time.perf_counter() - began
                mask = optimized.mask
                scores["boundary_agreement"] = optimized.agreement
            if mask.any():
                score = combine_scores(scores, self.config.score)
                prelabels.append(Prelabel(mask, box, point, category, score, scores, expression))
        if not prelabels:
            message = f"{len(groundings)} box(es) found for {expression!r}, but no object could be outlined in them."
            seen = tuple(replace(grounding, outline=None) for grounding in groundings)
            return Prelabels((), Abstention("absent", message, seen))
        return Prelabels(tuple(prelabels), left_out=left_out)

    def object_at(self, point: Point, names: Iterable[str], image: NamedImage) -> Box | None:
        """The box of the object that the grounder sees under a click, as of ``ObjectFinder``; None too where the
        grounder sees no objects without an expression.
        """
        if not isinstance(self.grounder, ObjectFinder):
            return None
        stages, began = spent.get(), time.perf_counter()
        before = stages["pixels"]
        found = self.grounder.object_at(point, names, image)
        stages["ground"] += time.perf_counter() - began - (stages["pixels"] - before)
        return found

    def exemplar_matcher(self) -> ExemplarMatcher | None:
        """What finds more like given objects; None where the grounder cannot. Made once."""
        with self._lock:
            if self._matcher is None and (target := EXEMPLARS.get(self.config.grounder.kind)) is not None:
                module, function = target.split(":")
                self._matcher = getattr(importlib.import_module(module), function)(self.grounder)
            return self._matcher

    def find_like(
        self,
        image: Image,
        positive: Sequence[Box],
        negative: Sequence[Box] = (),
        *,
        noun: str = "",
        key: str | None = None,
    ) -> tuple[Grounding, ...]:
        """What in ``image`` uint8[H, W, 3] RGB is like the objects in the boxes ``positive``, best first; see
        ``ExemplarFinder``. Lessons of ``noun`` that the grounder has count too.

        Raises:
            ConfigError: the grounder finds nothing by examples.
            PromptError: no example.
        """
        if isinstance(self.grounder, ExemplarFinder):
            return self.grounder.find_like(image, positive, negative, noun=noun, key=key)
        matcher = self.exemplar_matcher()
        if matcher is None:
            able = ", ".join(sorted({"sam3", *EXEMPLARS}))
            raise ConfigError(
                f"the config {self.config.name} finds nothing by examples (grounders of kind {able} do): name what you"
                " look for"
            )
        if not positive:
            raise PromptError("an example is needed: at least one box of an object to find more of")
        lesson = matcher.learn(image, positive, negative, complete=False, key=key)
        earlier = getattr(self.grounder, "lessons", {}).get(noun, ())
        return matcher.find(image, {noun or "object": [lesson, *earlier]}, key=key)

    def version_by_examples(self, positive: Sequence[Box], negative: Sequence[Box] = ()) -> str:
        """The name of the version that finds objects by these examples: as one with lessons, it changes with them."""
        boxes = {
            name: np.array(part, np.float32).reshape(-1, 4)
            for name, part in (("positive", positive), ("negative", negative))
        }
        return f"{self.trained_version}{LIKE}{digest({'': [boxes]})}"

    def with_exemplars(self, lessons: Lessons, version: str) -> PslgSam:
        """The pipeline, as ``version``, that also finds what ``lessons`` show; itself if it knows all of it."""
        known = self.grounder.known_categories
        if known is None or not lessons.keys() - known or (matcher := self.exemplar_matcher()) is None:
            return self
        return PslgSam(matcher.extended(lessons), self.segmenter, self.config, version, self.trained_version)

    def version_answering(self, expression: str) -> str:
        """The model version that the answer depends on: without lessons where the words name nothing that they show."""
        shown = getattr(self.grounder, "lessons", None)
        if not shown:
            return self.model_version
        query = expression_parser.parse(expression, self.grounder.known_categories or ())
        named = {query.category, *query.target_categories}
        return self.model_version if None in named or named & shown.keys() else self.trained_version

    def rescored(self, answer: Prelabels) -> Prelabels:
        """An answer of this model version with the scores that the config gives now: a calibration makes no version."""
        items = tuple(replace(item, score=combine_scores(item.scores, self.config.score)) for item in answer)
        return replace(answer, items=items)

    def embed(self, image: Image, window: Box | None = None, *, key: str | None = None) -> Embedding:
        """Image-side features of ``image`` uint8[H, W, 3] RGB or of a ``window`` of it, for any number of prompts.

        ``key`` names the image's content; without one the window's pixels are hashed.
        """
        _require_rgb(image)
        return self.segmenter.embed(image, window, key=key)

    def refine(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        """The mask for clicks, a box and an earlier mask; raises PromptError for prompts that cannot work."""
        return self.segmenter.decode(embedding, prompts)

    def count_memory_fallbacks(self, count: Callable[[], object]) -> None:
        """Have ``count`` called whenever the segmenter's GPU is out of memory and the CPU does its work."""
        fallback = getattr(self.segmenter, "memory_fallback", None)
        if fallback is not None:  # every segmenter built on torch has one
            fallback.count = count

    def count_model_calls(self, observe: Callable[..., object]) -> None:
        """Have ``observe`` called with what each question to a language model costs, if one is asked."""
        count = getattr(self.grounder, "count_calls", None)
        if count is not None:
            count(observe)

    def _outline(
        self, image: Image, grounding: Grounding, box: Box, point: Point | None, embedded: Callable[[Box], Embedding]
    ) -> MaskPrediction:
        """The mask that ``box``, that of ``grounding``, and its foreground ``point`` lead to."""

        def outline(around: Box, prompts: Prompts | None = None) -> MaskPrediction:
            given = prompts or box_and_point(box, point)
            embedding = embedded(self.segmenter.window_for(around, (image.shape[0], image.shape[1])))
            began = time.perf_counter()
            if isinstance(self.segmenter, Outliner):
                found = self.segmenter.outline(image, embedding, given)
            else:
                found = self.segmenter.decode(embedding, given)
            spent.get()["segment"] += time.perf_counter() - began
            return found

        found = outline(box)
        return found if grounding.like is None else best_outline(found, grounding.like, outline)


def _most_certain(groundings: tuple[Grounding, ...], most: int) -> tuple[Grounding, ...]:
    """The ``most`` boxes with the highest scores, in their order."""
    best = sorted(range(len(groundings)), key=lambda index: -groundings[index].score)[:most]
    return tuple(groundings[index] for index in sorted(best))


def box_and_point(box: Box, point: Point | None) -> Prompts:
    """The prompts of a pre-label: the box, and its foreground point as one positive click."""
    if point is None:
        return Prompts(box=box)
    return Prompts(points=np.array([point], np.float32), point_labels=np.ones(1, np.int64), box=box)


def _require_rgb(image: Image) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(
            f"an image must be uint8[H, W, 3] (RGB) with at least one pixel, got {image.dtype}{list(image.shape)};"
            " convert it before (gray or RGBA to RGB, 16-bit to 8-bit)"
        )
