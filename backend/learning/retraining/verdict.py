"""What the promotion gate says of its evidence: a version is promoted, refused, or waits, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from backend.learning.retraining.evidence import Answer, Evidence, gain, gain_bounds, mean_iou, worst_crowd
from dataset_tools.categories import category_named

__all__ = ["Rules", "Verdict", "decide", "too_few", "too_many"]

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
class Verdict:
    """The decision; ``waits``: there is too little to decide on. ``advice`` says what would help, None if promoted."""

    promoted: bool
    waits: bool
    reason: str
    advice: str | None = None


def decide(evidence: Evidence, rules: Rules) -> Verdict:
    """Whether to promote, and why."""
    refusal = too_few(evidence, rules) or too_many(evidence, rules)
    if refusal is not None:
        return refusal
    said = f"held-out mIoU {_change(evidence.held_out)} on {_counts(evidence)}"
    more = "label more images of what it finds badly, so that it learns more and the gate sees more"
    low, _ = gain_bounds(evidence.held_out)
    if gain(evidence.held_out) <= 0:
        return Verdict(False, False, f"{said}: not better", more)
    if low <= 0:
        reason = f"{said}: may be chance (a bootstrap over images puts the gain at {low:+.3f} or more)"
        return Verdict(False, False, reason, more)
    if evidence.lessons and gain(evidence.lessons) < -rules.tolerance:
        found = f'{said}, but lessons alone ("more like this") reach {mean_iou(evidence.lessons, "old"):.3f}'
        return Verdict(False, False, f"{found}: they go on serving", more)
    lost = _lost(evidence, rules)
    if lost:
        advice = "label some images of these categories too, and give PSLG_TRAIN_REPLAY a dataset that holds them"
        return Verdict(False, False, f"{said}, but known categories got worse: {lost}", advice)
    if not evidence.replay:
        return Verdict(True, False, f"{said}, at least {low:+.3f}; nothing to measure forgetting with")
    kept = f"replay mIoU {_change(evidence.replay)} on {len(evidence.replay)} expressions"
    if gain(evidence.replay) < -rules.tolerance:
        advice = "give PSLG_TRAIN_REPLAY a dataset of what the model knew before"
        return Verdict(False, False, f"{said}, but {kept}: more than {rules.tolerance:g} lost", advice)
    return Verdict(True, False, f"{said}, at least {low:+.3f}; {kept}")


def too_few(evidence: Evidence, rules: Rules) -> Verdict | None:
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


def too_many(evidence: Evidence, rules: Rules) -> Verdict | None:
    """The refusal of a version that finds far more objects than there are."""
    crowd = worst_crowd(evidence)
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


def _lost(evidence: Evidence, rules: Rules) -> str:
    """The categories that the new version answers worse, beyond tolerance and chance, in words; empty without any."""
    by_category: dict[str, list[Answer]] = {}
    for answer in (*evidence.held_out, *evidence.replay):
        by_category.setdefault(answer.category, []).append(answer)
    lost = []
    for category, answers in sorted(by_category.items()):
        enough = len({answer.image for answer in answers}) >= _JUDGED_IMAGES
        if enough and gain(answers) < -rules.tolerance and gain_bounds(answers)[1] < 0:
            lost.append(f"{category} {_change(answers)} on {len(answers)} expressions")
    return ", ".join(lost)


def _counts(evidence: Evidence) -> str:
    return f"{evidence.objects} objects, {len(evidence.held_out)} expressions, {evidence.images} images"


def _change(answers: Sequence[Answer]) -> str:
    return f"{mean_iou(answers, 'old'):.3f} -> {mean_iou(answers, 'new'):.3f}"
