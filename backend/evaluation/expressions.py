"""Measuring a pipeline on a dataset with the paper's metrics: what ``pslg evaluate`` prints.

Every expression that has a target counts, "all the ..." included: the union of the predicted masks against the union of
the masks it names; no answer is an IoU of 0. Expressions that name something absent count only as answered or not.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from backend.evaluation.choices import Picked, shares
from backend.pipeline import PslgSam
from backend.pipeline.types import Box, Embedding, Grounding, Image, Mask, Prelabels, hash_image
from dataset_tools import categories
from dataset_tools.errors import DatasetError
from dataset_tools.labelled import LabelledExpression, LabelledObject, Question, questions, read
from dataset_tools.metrics import Convention, Overlap, group, summarize

__all__ = ["Boxes", "Evaluation", "Outcome", "evaluate", "jittered", "read_questions"]

Boxes = Literal["predicted", "ground-truth"]


class Spent(NamedTuple):
    """Time in seconds: by the clock, and on all CPU cores together."""

    wall: float
    cpu: float

    @classmethod
    def until_now(cls) -> Spent:
        """By clocks that started at some time."""
        return cls(time.perf_counter(), time.process_time())

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(self.wall + other.wall, self.cpu + other.cpu)

    def minus(self, other: Spent) -> Spent:
        """What is left without ``other``."""
        return Spent(self.wall - other.wall, self.cpu - other.cpu)


NOTHING = Spent(0.0, 0.0)
Timed = tuple[Prelabels, Spent, Spent]
"""Prelabels, what they took, and what they took without embedding."""
SMALL_AREA = 32 * 32
"""An object of fewer pixels is a small one (COCO's definition)."""


@dataclass(frozen=True)
class Outcome:
    """How one expression (or one object) went.

    Attributes:
        question: what was asked.
        overlap: pixels of prediction and target; None for expressions without a target.
        answered: there was at least one mask.
        box_iou: first predicted box against the one target's box; None unless there is exactly one target.
        target_area: pixels of the target at the image's own size.
        choice: whether exactly the objects meant were chosen.
        spent: on the whole expression, embedding its windows included.
        spent_embedded: of which not on embedding: what it takes when the embeddings are stored.
    """

    question: Question
    overlap: Overlap | None
    answered: bool
    box_iou: float | None
    target_area: int
    spent: Spent
    spent_embedded: Spent
    choice: Picked

    def iou(self, convention: Convention) -> float:
        """The IoU; for an absent object 1 if the pipeline abstained, else 0."""
        return float(not self.answered) if self.overlap is None else convention.iou(self.overlap)


@dataclass(frozen=True)
class Evaluation:
    """All outcomes, and what they sum up to."""

    outcomes: tuple[Outcome, ...]
    instances: tuple[Outcome, ...]
    convention: Convention
    model_version: str
    settings: dict[str, Any] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """One JSON object; shares are fractions, seconds are means per expression."""
        present = [one for one in self.outcomes if one.question.targets]
        absent = [one for one in self.outcomes if not one.question.targets]
        single = [one for one in present if one.question.kind != "all"]
        boxes = [one.box_iou for one in single if one.box_iou is not None]
        report: dict[str, Any] = {
            **self._summary(present),
            "by_kind": self._grouped(present, lambda one: one.question.kind),
            "by_category": self._grouped(present, lambda one: one.question.label),
            "single_target": self._summary(single),
            "small_objects": self._summary([one for one in single if one.target_area < SMALL_AREA]),
            "grounding": {"n": len(boxes), "P@0.5": float(np.mean([iou >= 0.5 for iou in boxes])) if boxes else 0.0},
            "choices": self._choices(present),
            "absent": {"n": len(absent), "abstained": sum(not one.answered for one in absent)},
            "present": {"n": len(present), "answered": sum(one.answered for one in present)},
            "seconds": _mean([one.spent.wall for one in self.outcomes]),
            "seconds_embedded": _mean([one.spent_embedded.wall for one in self.outcomes]),
            "cpu_seconds": _mean([one.spent.cpu for one in self.outcomes]),
            "cpu_seconds_embedded": _mean([one.spent_embedded.cpu for one in self.outcomes]),
            "model_version": self.model_version,
            "convention": self.convention.describe(),
            **self.settings,
        }
        if self.instances:
            report["instances"] = {
                **self._summary(self.instances),
                "by_category": self._grouped(self.instances, lambda one: one.question.label),
            }
        return report

    def _choices(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Of all, and by style where the rows name one."""
        styled = group(
            [one for one in outcomes if one.question.expression.style], lambda o: o.question.expression.style
        )
        by_style = {style: shares([one.choice for one in members]) for style, members in sorted(styled.items())}
        return {**shares([one.choice for one in outcomes]), "by_style": by_style}

    def _summary(self, outcomes: Iterable[Outcome]) -> dict[str, Any]:
        return summarize([one.overlap for one in outcomes if one.overlap is not None], self.convention)

    def _grouped(self, outcomes: Sequence[Outcome], key: Callable[[Outcome], str]) -> dict[str, Any]:
        return {name: self._summary(members) for name, members in sorted(group(outcomes, key).items())}


def read_questions(data: Path, split: str | Path | None = None, expressions: Path | None = None) -> list[Question]:
    """Every expression of a dataset folder with its image; see ``dataset_tools.labelled.read`` for the arguments.

    Raises:
        DatasetError: the folder cannot be read, or holds no expressions.
    """
    asked = questions(read(data, split, expressions=expressions))
    if not asked:
        raise DatasetError(f"{data} has no expressions" + (f" in the split {str(split)!r}" if split else ""))
    return asked


def evaluate(
    pipeline: PslgSam,
    asked: Sequence[Question],
    read_image: Callable[[Path], Image],
    *,
    boxes: Boxes = "predicted",
    box_jitter: float = 0.0,
    convention: Convention,
    labels: Collection[str] = (),
    progress: Callable[[int], object] = lambda _: None,
    seen: Callable[[Outcome, Image, Prelabels, Mask], object] = lambda *_: None,
) -> Evaluation:
    """Run ``pipeline`` over the questions ``asked``, image by image.

    Args:
        pipeline: what is measured.
        asked: in any order; those of one image are run together.
        read_image: image file -> uint8[H, W, 3] RGB.
        boxes: ``ground-truth`` hands stage 2 one box per target, so that it is measured alone; expressions without a
            target are left out then.
        box_jitter: each side of such a box is moved by up to this share of the box's width or height, at random but
            the same in every run.
        convention: how pixels are counted.
        labels: a project's own categories, see ``Grounder.ground``.
        progress: called with the number of expressions done since the last call.
        seen: called with every outcome, its image, the prelabels and the target bool[H, W] (for galleries).
    """
    outcomes: list[Outcome] = []
    instances: list[Outcome] = []
    if boxes == "ground-truth":
        asked = [question for question in asked if question.targets]
    for members in group(asked, lambda question: id(question.image)).values():
        labelled = members[0].image
        image = read_image(labelled.path)
        runner = _Runner(pipeline, image, box_jitter, labels)
        for question in members:
            timed = runner.prelabel(question.expression.text) if boxes == "predicted" else runner.segment(question)
            target = _union([target.mask() for target in question.targets], image)
            outcome = _outcome(question, timed, target, convention)
            outcomes.append(outcome)
            seen(outcome, image, timed[0], target)
            progress(1)
        for index, timed in runner.segmented.items():
            alone = Question(labelled, LabelledExpression("", (index,), "instance"))
            instances.append(_outcome(alone, timed, labelled.objects[index].mask(), convention))
    settings: dict[str, Any] = {"boxes": boxes}
    if boxes == "ground-truth":
        settings["box_jitter"] = box_jitter
    return Evaluation(tuple(outcomes), tuple(instances), convention, pipeline.model_version, settings)


def jittered(box: Box, share: float, seed: int) -> Box:
    """``box`` with each side moved by up to ``share`` of its width or height; a function of its arguments only."""
    moves = np.random.default_rng(seed).uniform(-share, share, 4)
    sides = np.array([box.width, box.height, box.width, box.height])
    return Box(*(float(value) for value in np.array(box) + moves * sides))


class _Runner:
    """Runs one image's expressions; embeds each window once and keeps count of what that took.

    Attributes:
        segmented: index of an object -> stage 2 on its ground-truth box.
    """

    def __init__(self, pipeline: PslgSam, image: Image, box_jitter: float, labels: Collection[str]) -> None:
        self._pipeline, self._image, self._box_jitter, self._labels = pipeline, image, box_jitter, labels
        self._key = hash_image(image)
        self._embeddings: dict[Box | None, tuple[Embedding, Spent]] = {}
        self._embed_spent = self._embed_due = NOTHING
        self.segmented: dict[int, Timed] = {}

    def prelabel(self, expression: str) -> Timed:
        ask = partial(self._pipeline.prelabel, self._image, expression, key=self._key)
        return self._timed(lambda: ask(embed=self._embed, labels=self._labels))

    def segment(self, question: Question) -> Timed:
        indices = question.expression.objects
        for index, target in zip(indices, question.targets, strict=True):
            if index not in self.segmented:
                box = jittered(target.box, self._box_jitter, _seed(question, target, index))
                given = (Grounding(box, 1.0, categories.canonical(target.label)),)
                run = partial(self._pipeline.segment, self._image, given, embed=self._embed)
                self.segmented[index] = self._timed(run)
        parts = [self.segmented[index] for index in indices]
        items = tuple(item for found, _, _ in parts for item in found)
        spent = reduce(Spent.plus, (whole for _, whole, _ in parts), NOTHING)
        embedded = reduce(Spent.plus, (rest for _, _, rest in parts), NOTHING)
        return Prelabels(items), spent, embedded

    def _timed(self, run: Callable[[], Prelabels]) -> Timed:
        """Result, what it takes if nothing had been embedded before, and if everything had."""
        self._embed_spent = self._embed_due = NOTHING
        start = Spent.until_now()
        found = run()
        embedded = Spent.until_now().minus(start).minus(self._embed_spent)
        return found, embedded.plus(self._embed_due), embedded

    def _embed(self, image: Image, window: Box | None) -> Embedding:
        if window not in self._embeddings:
            start = Spent.until_now()
            embedding = self._pipeline.embed(image, window, key=self._key)
            spent = Spent.until_now().minus(start)
            self._embeddings[window] = (embedding, spent)
            self._embed_spent = self._embed_spent.plus(spent)
        embedding, spent = self._embeddings[window]
        self._embed_due = self._embed_due.plus(spent)
        return embedding


def _seed(question: Question, target: LabelledObject, index: int) -> int:
    """The same in every run for the same object."""
    return zlib.crc32((target.id or f"{question.image.path.name}:{index}").encode())


def _union(masks: Sequence[Mask], image: Image) -> Mask:
    union = np.zeros(image.shape[:2], np.bool_)
    for mask in masks:
        union |= mask
    return union


def _outcome(question: Question, timed: Timed, target: Mask, convention: Convention) -> Outcome:
    found, spent, embedded = timed
    predicted = np.zeros_like(target)
    for item in found:
        predicted |= item.mask
    box_iou = None
    targets = question.targets
    offered = () if found.abstained is None else tuple(one.box for one in found.abstained.candidates)
    if len(targets) == 1:
        box_iou = found[0].box.iou(targets[0].box) if len(found) else 0.0
    return Outcome(
        question=question,
        overlap=convention.overlap(predicted, target) if targets else None,
        answered=len(found) > 0,
        box_iou=box_iou,
        target_area=int(target.sum()),
        spent=spent,
        spent_embedded=embedded,
        choice=Picked.of([item.box for item in found], offered, [target.box for target in targets]),
    )


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0
