"""The promotion gate: a trained version is promoted only if it is better for the project and has forgotten nothing.

Better is measured on a share of the project's own images that training never sees: which they are depends on the
project's number and the image's hash alone, so it never changes. Forgetting is measured on replay images.

Both versions answer the same expressions; what differs is compared in pairs. Whether a difference is more than chance
says a bootstrap over images (their expressions stand or fall together), with a fixed seed: ``CERTAINTY`` of the redrawn
means must lie on the same side of 0.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from backend.evaluation.expressions import Outcome, evaluate
from backend.learning.annotations.exemplars import MOST_LESSONS
from backend.pipeline.grounding.exemplars import LIKE, lessons_of
from backend.pipeline.pslg_sam import PslgSam
from dataset_tools.categories import CATEGORIES, category_name, category_named
from dataset_tools.image_files import read
from dataset_tools.labelled import LabelledImage, questions, spread
from dataset_tools.metrics import CONVENTIONS

__all__ = ["Answer", "Crowd", "Evidence", "GateReport", "Rules", "Verdict", "compare", "decide", "is_held_out"]

MOST_EXPRESSIONS = 200
"""Of each set so many expressions are asked at most, at even distances."""
CERTAINTY = 0.95
_DRAWS = 2000
_SEED = 20261127
_CONVENTION = CONVENTIONS["native"]
_JUDGED_IMAGES = 3
"""A category that fewer images ask about is not judged alone: two are not enough to tell a loss from chance."""


@dataclass(frozen=True)
class Rules:
    """What a version must fulfil.

    Attributes:
        objects, images: held-out objects and images with expressions that there must be, at least.
        share: of the project's images that is held out, to say how many labels are missing.
        tolerance: mIoU that a version may lose on replay, and that a category may lose.
        crowd: an answer may have so many times the objects that any labelled image holds of the category...
        crowd_floor: ...but always so many.
        most_objects: objects of one expression that go to Label Studio; a version that finds more is never promoted.
    """

    objects: int = 10
    images: int = 5
    share: float = 0.2
    tolerance: float = 0.01
    crowd: float = 3.0
    crowd_floor: int = 10
    most_objects: int = 100


@dataclass(frozen=True)
class Answer:
    """How both versions answered one expression: IoU in [0, 1]; 1 if nothing was rightly found."""

    image: str
    category: str
    old: float
    new: float


@dataclass(frozen=True)
class Crowd:
    """Most objects of a category that the new version finds in an image, and that any labelled image holds."""

    category: str
    found: int
    labelled: int


@dataclass(frozen=True)
class Evidence:
    """What was measured.

    Attributes:
        objects, images: held out, with expressions about them.
        held_out, replay: the answers; empty where nothing was asked.
        crowds: of every category that the project labels, in held-out images.
        lessons: the held-out answers where the old version may use lessons of what the new one was trained on; empty
            where they teach it nothing.
    """

    objects: int
    images: int
    held_out: Sequence[Answer]
    replay: Sequence[Answer]
    crowds: Sequence[Crowd] = ()
    lessons: Sequence[Answer] = ()


@dataclass(frozen=True)
class Verdict:
    """The decision; ``waits``: there is too little to decide on. ``advice`` says what would help, None if promoted."""

    promoted: bool
    waits: bool
    reason: str
    advice: str | None = None


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
    if (refusal := _too_few(evidence, rules)) is not None:
        return _report(evidence, refusal)
    labels = {item.category for image in (*held_out, *training) for item in image.objects} - CATEGORIES.keys()
    evidence = replace(evidence, crowds=_crowds(new, held_out, training))
    if (refusal := _too_many(evidence, rules)) is not None:
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


def decide(evidence: Evidence, rules: Rules) -> Verdict:
    """Whether to promote, and why."""
    refusal = _too_few(evidence, rules) or _too_many(evidence, rules)
    if refusal is not None:
        return refusal
    said = f"held-out mIoU {_change(evidence.held_out)} on {_counts(evidence)}"
    more = "label more images of what it finds badly, so that it learns more and the gate sees more"
    low, _ = _interval(evidence.held_out)
    if _gain(evidence.held_out) <= 0:
        return Verdict(False, False, f"{said}: not better", more)
    if low <= 0:
        reason = f"{said}: may be chance (a bootstrap over images puts the gain at {low:+.3f} or more)"
        return Verdict(False, False, reason, more)
    if evidence.lessons and _gain(evidence.lessons) < -rules.tolerance:
        found = f'{said}, but lessons alone ("more like this") reach {_mean(evidence.lessons, "old"):.3f}'
        return Verdict(False, False, f"{found}: they go on serving", more)
    lost = _lost(evidence, rules)
    if lost:
        advice = "label some images of these categories too, and give PSLG_TRAIN_REPLAY a dataset that holds them"
        return Verdict(False, False, f"{said}, but known categories got worse: {lost}", advice)
    if not evidence.replay:
        return Verdict(True, False, f"{said}, at least {low:+.3f}; nothing to measure forgetting with")
    kept = f"replay mIoU {_change(evidence.replay)} on {len(evidence.replay)} expressions"
    if _gain(evidence.replay) < -rules.tolerance:
        advice = "give PSLG_TRAIN_REPLAY a dataset of what the model knew before"
        return Verdict(False, False, f"{said}, but {kept}: more than {rules.tolerance:g} lost", advice)
    return Verdict(True, False, f"{said}, at least {low:+.3f}; {kept}")


def _too_few(evidence: Evidence, rules: Rules) -> Verdict | None:
    """Waiting, where too little is held out to decide on."""
    objects, images = max(0, rules.objects - evidence.objects), max(0, rules.images - evidence.images)
    if not objects and not images:
        return None
    missing = [f"{n} more {name}" for n, name in ((objects, "objects"), (images, "images")) if n]
    reason = (
        f"waits for labels: {evidence.objects} held-out objects on {evidence.images} images, of at least"
        f" {rules.objects} on {rules.images}; {' and '.join(missing)} missing"
    )
    per_image = evidence.objects / evidence.images if evidence.images else 1.0
    wanted = math.ceil(max(images, objects / max(per_image, 1.0)) / rules.share)
    return Verdict(
        False,
        True,
        reason,
        f"label about {wanted} more images: {rules.share:.0%} of a project's images are held out",
    )


def _too_many(evidence: Evidence, rules: Rules) -> Verdict | None:
    """The refusal of a version that finds far more objects than there are."""
    crowd = _worst(evidence)
    if crowd is None:
        return None
    most = min(rules.most_objects, max(rules.crowd_floor, math.floor(rules.crowd * crowd.labelled)))
    if crowd.found <= most:
        return None
    reason = (
        f"too many false detections: {crowd.found} objects called {crowd.category!r} in one held-out image, where no"
        f" labelled image holds more than {crowd.labelled} (at most {most} are accepted)"
    )
    if most < crowd.labelled:
        advice = f"if images truly hold so many, raise PSLG_MAX_OBJECTS ({rules.most_objects}) and train again"
        return Verdict(False, False, reason, advice)
    advice = (
        f"label images without any {category_named(crowd.category).display}, and outline all of them elsewhere with"
        f' words like "all the {category_named(crowd.category).plural}": they show the model what is none'
    )
    return Verdict(False, False, reason, advice)


def _worst(evidence: Evidence) -> Crowd | None:
    return max(evidence.crowds, key=lambda crowd: crowd.found / max(crowd.labelled, 1), default=None)


def _lost(evidence: Evidence, rules: Rules) -> str:
    """The categories that the new version answers worse, beyond tolerance and chance, in words; empty without any."""
    by_category: dict[str, list[Answer]] = {}
    for answer in (*evidence.held_out, *evidence.replay):
        by_category.setdefault(answer.category, []).append(answer)
    lost = []
    for category, answers in sorted(by_category.items()):
        enough = len({answer.image for answer in answers}) >= _JUDGED_IMAGES
        if enough and _gain(answers) < -rules.tolerance and _interval(answers)[1] < 0:
            lost.append(f"{category} {_change(answers)} on {len(answers)} expressions")
    return ", ".join(lost)


def _counts(evidence: Evidence) -> str:
    return f"{evidence.objects} objects, {len(evidence.held_out)} expressions, {evidence.images} images"


def _change(answers: Sequence[Answer]) -> str:
    return f"{_mean(answers, 'old'):.3f} -> {_mean(answers, 'new'):.3f}"


def _mean(answers: Sequence[Answer], which: str) -> float:
    return float(np.mean([getattr(answer, which) for answer in answers]))


def _gain(answers: Sequence[Answer]) -> float:
    return _mean(answers, "new") - _mean(answers, "old")


def _interval(answers: Sequence[Answer]) -> tuple[float, float]:
    """One-sided bounds of the mean gain, each with ``CERTAINTY``: images are redrawn with all their answers."""
    images = sorted({answer.image for answer in answers})
    place = {image: number for number, image in enumerate(images)}
    gains, counts = np.zeros(len(images)), np.zeros(len(images))
    for answer in answers:
        gains[place[answer.image]] += answer.new - answer.old
        counts[place[answer.image]] += 1
    drawn = np.random.default_rng(_SEED).integers(len(images), size=(_DRAWS, len(images)))
    means = gains[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [1 - CERTAINTY, CERTAINTY])
    return float(low), float(high)


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
        return (_mean(answers, "old"), _mean(answers, "new")) if answers else (None, None)

    worst = _worst(evidence)
    low, high = _interval(evidence.held_out) if evidence.held_out else (None, None)
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
