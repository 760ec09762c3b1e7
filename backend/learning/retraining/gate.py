"""The promotion gate: a trained version is promoted only if it is better for the project and has forgotten nothing.

Better is measured on a share of the project's own images that training never sees: which they are depends on the
project's number and the image's hash alone, so it never changes. Forgetting is measured on replay images. What is
measured is the ``Evidence``, what it amounts to the ``Verdict``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from backend.evaluation.expressions import Outcome, evaluate
from backend.learning.annotations.exemplars import MOST_LESSONS
from backend.learning.retraining.evidence import Answer, Crowd, Evidence, gain_bounds, mean_iou, worst_crowd
from backend.learning.retraining.verdict import Rules, Verdict, decide, too_few, too_many
from backend.pipeline.grounding.exemplars import LIKE, lessons_of
from backend.pipeline.pslg_sam import PslgSam
from dataset_tools.categories import CATEGORIES, category_name, category_named
from dataset_tools.image_files import read
from dataset_tools.labelled import LabelledImage, questions, spread
from dataset_tools.metrics import CONVENTIONS

__all__ = ["GateReport", "compare", "is_held_out"]

MOST_EXPRESSIONS = 200
"""Of each set so many expressions are asked at most, at even distances."""
_CONVENTION = CONVENTIONS["native"]


@dataclass(frozen=True)
class GateReport:
    """End-to-end mIoU of both versions in [0, 1], and the decision; None where there was nothing to measure.

    Attributes:
        held_out_old, held_out_new, replay_old, replay_new: mIoU over expressions.
        gain_low, gain_high: between them ``CERTAINTY`` of the held-out gains that a bootstrap over images draws lie.
        objects, images, expressions: held out.
        replay_expressions: asked about replay images.
        most_found, most_labelled: of the category that is furthest over what labelled images hold.
        promoted, waits, reason, advice: the ``Verdict``.
        held_out_lessons: mIoU of the old version with lessons of the training's images; None where it is the same.
    """

    held_out_old: float | None
    held_out_new: float | None
    replay_old: float | None
    replay_new: float | None
    gain_low: float | None
    gain_high: float | None
    objects: int
    images: int
    expressions: int
    replay_expressions: int
    most_found: int | None
    most_labelled: int | None
    promoted: bool
    waits: bool
    reason: str
    advice: str | None
    held_out_lessons: float | None = None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def is_held_out(project_id: int | str, image_key: str, share: float) -> bool:
    """Whether an image measures instead of trains: a ``share`` of a project's images, the same for ever.

    Args:
        project_id: Label Studio's number of the project.
        image_key: sha256 of the image.
        share: in [0, 1]; what a smaller share holds out a larger one does too.
    """
    digest = hashlib.sha256(f"{project_id}:{image_key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def compare(
    old: PslgSam,
    new: PslgSam,
    held_out: Sequence[LabelledImage],
    replay: Sequence[LabelledImage],
    *,
    training: Sequence[LabelledImage] = (),
    rules: Rules | None = None,
    limit: int | None = MOST_EXPRESSIONS,
    progress: Callable[[int], object] = lambda _: None,
) -> GateReport:
    """Measure both versions end to end: every expression from its words to the union of its masks.

    An expression about something absent counts 1 if it got no mask, else 0. Where there is too little to decide on, or
    the new version finds far too many objects, no mask is computed.

    Args:
        old: the version that is served.
        new: the version that wants to be.
        held_out: the project's images that neither was trained on (``is_held_out``).
        replay: images of what was known before.
        training: the project's other labelled images: how many objects an image holds, and what lessons of them find.
        rules: see ``Rules``.
        limit: most expressions asked of each set; None asks all.
        progress: called with the number of expressions done since the last call.
    """
    rules = rules or Rules()
    asked = questions(held_out)
    places = {(question.image.key, index) for question in asked for index in question.expression.objects}
    evidence = Evidence(len(places), len({question.image.key for question in asked}), (), ())
    if (refusal := too_few(evidence, rules)) is not None:
        return _report(evidence, refusal)
    labels = {item.category for image in (*held_out, *training) for item in image.objects} - CATEGORIES.keys()
    evidence = replace(evidence, crowds=_crowds(new, held_out, training))
    if (refusal := too_many(evidence, rules)) is not None:
        return _report(evidence, refusal)
    taught = _with_lessons(old, training)
    of_project = partial(_outcomes, images=held_out, limit=limit, labels=labels, progress=progress)
    of_replay = partial(_outcomes, images=replay, limit=limit, labels=(), progress=progress)
    answered = of_project(new)
    evidence = replace(
        evidence,
        held_out=_paired(of_project(old), answered),
        lessons=() if taught is old else _paired(of_project(taught), answered),
        replay=_paired(of_replay(old), of_replay(new)),
    )
    return _report(evidence, decide(evidence, rules))


def _outcomes(
    pipeline: PslgSam,
    images: Sequence[LabelledImage],
    limit: int | None,
    labels: Collection[str],
    progress: Callable[[int], object],
) -> Sequence[Outcome]:
    """What ``pipeline`` answers to the expressions of ``images``; its grounder keeps an image's boxes meanwhile."""
    asked = spread(questions(images), limit)
    return evaluate(pipeline, asked, read, convention=_CONVENTION, labels=labels, progress=progress).outcomes


def _paired(old: Sequence[Outcome], new: Sequence[Outcome]) -> list[Answer]:
    """Both versions' answers to the same expressions."""
    return [
        Answer(
            before.question.image.key,
            category_name(before.question.label or before.question.expression.text),
            before.iou(_CONVENTION),
            after.iou(_CONVENTION),
        )
        for before, after in zip(old, new, strict=True)
    ]


def _with_lessons(old: PslgSam, training: Sequence[LabelledImage]) -> PslgSam:
    """``old`` as it serves between trainings, with lessons of their images; itself where they teach it nothing."""
    matcher, known = old.exemplar_matcher(), old.grounder.known_categories
    if matcher is None or known is None:
        return old
    return old.with_exemplars(lessons_of(matcher, training[:MOST_LESSONS], known), f"{old.model_version}{LIKE}gate")


def _crowds(new: PslgSam, held_out: Sequence[LabelledImage], training: Sequence[LabelledImage]) -> list[Crowd]:
    """How many objects "all the X" finds in the held-out images, of every X that the project labels; no masks."""
    labelled: dict[str, int] = {}
    for image in (*held_out, *training):
        for name, count in Counter(item.category for item in image.objects).items():
            labelled[name] = max(labelled.get(name, 0), count)
    known = new.grounder.known_categories
    names = [name for name in labelled if known is None or name in known]
    found = dict.fromkeys(names, 0)
    for image in held_out if names else ():
        pixels = image.pixels()
        for name in names:
            asked = f"all the {category_named(name).plural}"
            grounding = new.ground(pixels, asked, key=image.key, labels=labelled)
            found[name] = max(found[name], len(grounding.groundings))
    return [Crowd(name, found[name], labelled[name]) for name in names]


def _report(evidence: Evidence, verdict: Verdict) -> GateReport:
    def means(answers: Sequence[Answer]) -> tuple[float | None, float | None]:
        return (mean_iou(answers, "old"), mean_iou(answers, "new")) if answers else (None, None)

    worst = worst_crowd(evidence)
    low, high = gain_bounds(evidence.held_out) if evidence.held_out else (None, None)
    return GateReport(
        *means(evidence.held_out),
        *means(evidence.replay),
        gain_low=low,
        gain_high=high,
        objects=evidence.objects,
        images=evidence.images,
        expressions=len(evidence.held_out),
        replay_expressions=len(evidence.replay),
        most_found=None if worst is None else worst.found,
        most_labelled=None if worst is None else worst.labelled,
        promoted=verdict.promoted,
        waits=verdict.waits,
        reason=verdict.reason,
        advice=verdict.advice,
        held_out_lessons=means(evidence.lessons)[0],
    )
