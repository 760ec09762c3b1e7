"""What the promotion gate decides on: both versions' answers to the same expressions, in pairs, and crowds.

Whether a difference is more than chance says a bootstrap over images (their expressions stand or fall together), with a
fixed seed: ``CERTAINTY`` of the redrawn means must lie on the same side of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["CERTAINTY", "Answer", "Crowd", "Evidence", "gain", "gain_bounds", "mean_iou", "worst_crowd"]

CERTAINTY = 0.95
_DRAWS = 2000
_SEED = 20261127


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


def worst_crowd(evidence: Evidence) -> Crowd | None:
    """That of the category that is furthest over what labelled images hold; None without any."""
    return max(evidence.crowds, key=lambda crowd: crowd.found / max(crowd.labelled, 1), default=None)


def mean_iou(answers: Sequence[Answer], which: Literal["old", "new"]) -> float:
    """Mean IoU of the ``old`` or the ``new`` version's answers, at least one."""
    return float(np.mean([getattr(answer, which) for answer in answers]))


def gain(answers: Sequence[Answer]) -> float:
    """What the new version is better by on the mean."""
    return mean_iou(answers, "new") - mean_iou(answers, "old")


def gain_bounds(answers: Sequence[Answer]) -> tuple[float, float]:
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
