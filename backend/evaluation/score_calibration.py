"""Scores that are probabilities: fitted on answers whose truth is known, kept in the pipeline config.

The event is "accepted unchanged", taken as an IoU with the truth of at least 0.85. ``backend.pipeline.scores`` says
what is fitted: log odds of the parts -> found -> outlined, five numbers in all, and three more for clicks
(``click_calibration``, by the same means). They come from the validation part of a dataset: the networks saw the
training part, so that their parts look better there than they are elsewhere.

How well the probabilities hold is measured by ``Reliability``, on answers that had no say in the fit: folds of images
for the validation part itself (``cross_fitted``), or another part of the dataset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.evaluation.expressions import Outcome, evaluate
from backend.pipeline import PslgSam
from backend.pipeline.config import LogisticConfig, ScoreConfig, ScorePart
from backend.pipeline.scores import combine_scores, log_odds
from backend.pipeline.types import Image, Mask, Prelabels
from dataset_tools import metrics
from dataset_tools.errors import ConfigError
from dataset_tools.labelled import Question

__all__ = [
    "ObservedAnswer",
    "Reliability",
    "cross_fitted",
    "fit",
    "fit_odds",
    "folds",
    "observe",
    "reliability",
    "require_both",
    "scored",
    "with_score",
]

FOUND_IOU = 0.5
"""From this IoU on a mask is of the object that was meant."""
_FOUND_PARTS: tuple[ScorePart, ...] = ("grounding", "predicted_iou")
_OUTLINED_PARTS: tuple[ScorePart, ...] = ("predicted_iou", "stability")
_RIDGE = 1.0
_FEWEST = 10
"""Objects that must be on either side of each question; fewer say nothing about five numbers."""
FOLDS = 7
_BINS = 10

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ObservedAnswer:
    """One expression that got at least one mask, and how good it was.

    Attributes:
        image: what the folds are made of.
        parts: of each object, ``Prelabel.scores``.
        ious: of each object with the target that it fits best, 0.0 where the expression names nothing in the image.
        iou: of all objects together with all targets together.
    """

    image: str
    parts: tuple[Mapping[str, float], ...]
    ious: tuple[float, ...]
    iou: float


@dataclass(frozen=True)
class Reliability:
    """How far probabilities and what came true are apart.

    Attributes:
        n: how many.
        accepted: share that came true.
        mean: mean probability.
        ece: expected calibration error: |mean probability - share that came true|, averaged over ten groups of equal
            size in the order of the probability.
        brier: mean squared difference.
        auc: chance that one that came true has the higher probability of two; 0.5 is no order at all.
        bins: (mean probability, share that came true, n) of each group.
    """

    n: int
    accepted: float
    mean: float
    ece: float
    brier: float
    auc: float
    bins: tuple[tuple[float, float, int], ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, rounded to four digits."""
        values = asdict(self)
        values["bins"] = [[round(p, 4), round(share, 4), n] for p, share, n in self.bins]
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def observe(
    pipeline: PslgSam,
    asked: Sequence[Question],
    read_image: Callable[[Path], Image],
    progress: Callable[[int], object] = lambda _: None,
) -> list[ObservedAnswer]:
    """The pipeline's answers; abstentions, whose score is 0 whatever is fitted, are left out."""
    answers: list[ObservedAnswer] = []

    def keep(outcome: Outcome, _: Image, found: Prelabels, target: Mask) -> None:
        if not found:
            return
        truth = [one.mask() for one in outcome.question.targets]
        ious = tuple(max((metrics.iou(item.mask, mask) for mask in truth), default=0.0) for item in found)
        predicted = np.logical_or.reduce([item.mask for item in found])
        together = metrics.iou(predicted, target) if truth else 0.0
        parts = tuple(dict(item.scores) for item in found)
        answers.append(ObservedAnswer(outcome.question.image.path.name, parts, ious, together))

    native = metrics.CONVENTIONS["native"]
    evaluate(pipeline, asked, read_image, convention=native, progress=progress, seen=keep)
    return answers


def fit(answers: Sequence[ObservedAnswer], accepted_iou: float = 0.85) -> ScoreConfig:
    """The calibration under which ``answers`` are likeliest, with a ridge on the weights and none of them negative.

    Raises:
        ConfigError: too few answers, or all of them good or bad: nothing can be learnt from them.
    """
    parts = [part for answer in answers for part in answer.parts]
    ious = np.array([iou for answer in answers for iou in answer.ious])
    found = ious >= FOUND_IOU
    accepted = ious >= accepted_iou
    require_both("objects found", found)
    require_both(f"objects found with an IoU of {accepted_iou}", accepted[found])
    inside = [part for part, hit in zip(parts, found, strict=True) if hit]
    return ScoreConfig(
        accepted_iou=accepted_iou,
        found=fit_odds(parts, found, _FOUND_PARTS),
        outlined=fit_odds(inside, accepted[found], _OUTLINED_PARTS),
    )


def scored(
    answers: Sequence[ObservedAnswer], config: ScoreConfig | None, accepted_iou: float
) -> dict[str, Reliability]:
    """How reliable a config's scores are: of single ``objects``, and of whole ``answers`` (their least object's)."""
    return _rated(
        answers, [[combine_scores(part, config) for part in answer.parts] for answer in answers], accepted_iou
    )


def cross_fitted(
    answers: Sequence[ObservedAnswer], accepted_iou: float = 0.85, seed: int = 0
) -> dict[str, Reliability]:
    """As ``scored``, each answer by a calibration that saw no answer of its image."""
    fold_of = folds([answer.image for answer in answers], seed)
    configs = [fit([a for a in answers if fold_of[a.image] != fold], accepted_iou) for fold in range(FOLDS)]
    scores = [[combine_scores(part, configs[fold_of[answer.image]]) for part in answer.parts] for answer in answers]
    return _rated(answers, scores, accepted_iou)


def folds(images: Iterable[str], seed: int = 0) -> dict[str, int]:
    """Each image's fold, below ``FOLDS``; a function of the names and the seed only."""
    names = sorted(set(images))
    mixed = np.random.default_rng(seed).permutation(len(names))
    return {names[index]: place % FOLDS for place, index in enumerate(mixed)}


def require_both(what: str, came_true: Flags) -> None:
    """Raises ConfigError where too few of bool[N] are true, or too few false, to learn anything from them."""
    yes, no = int(came_true.sum()), int((~came_true).sum())
    if min(yes, no) < _FEWEST:
        raise ConfigError(
            f"too little to calibrate scores on: {yes} {what}, {no} not, at least {_FEWEST} of each are needed; give"
            " more data or another split"
        )


def reliability(probabilities: Values, came_true: Flags) -> Reliability:
    """Compare probabilities float[N] with what came true, bool[N]; N of at least one."""
    from sklearn.metrics import roc_auc_score

    by_probability = np.argsort(probabilities, kind="stable")
    bins = [
        (float(probabilities[part].mean()), float(came_true[part].mean()), len(part))
        for part in np.array_split(by_probability, _BINS)
        if len(part)
    ]
    return Reliability(
        n=len(probabilities),
        accepted=float(came_true.mean()),
        mean=float(probabilities.mean()),
        ece=sum(n * abs(p - share) for p, share, n in bins) / len(probabilities),
        brier=float(((probabilities - came_true) ** 2).mean()),
        auc=0.5 if came_true.all() or not came_true.any() else float(roc_auc_score(came_true, probabilities)),
        bins=tuple(bins),
    )


def with_score(text: str, score: ScoreConfig) -> str:
    """The YAML ``text`` of a pipeline config with its section ``score`` replaced, or added at the end."""
    kept = re.sub(
        r"^score:.*\n(?:[ \t]+.*\n|\n(?=[ \t]))*", "", text if text.endswith("\n") else text + "\n", flags=re.M
    )
    found, outlined = _flow(score.found), _flow(score.outlined)
    clicked = (
        "" if score.clicked is None else f"  clicked: {_flow(score.clicked)}  # and of one after clicks or a box\n"
    )
    return (
        f"{kept}score:                        # scores are probabilities; written by `pslg calibrate-score`\n"
        f"  accepted_iou: {score.accepted_iou}          # IoU from which a mask counts as accepted unchanged\n"
        f"  found: {found}  # log odds of the right object\n"
        f"  outlined: {outlined}  # and of such an outline, where it is\n"
        f"{clicked}"
    )


def _flow(model: LogisticConfig) -> str:
    weights = ", ".join(f"{part}: {weight}" for part, weight in model.weights.items())
    return f"{{offset: {model.offset}, weights: {{{weights}}}}}"


def _rated(
    answers: Sequence[ObservedAnswer], scores: Sequence[Sequence[float]], accepted_iou: float
) -> dict[str, Reliability]:
    objects = np.array([score for row in scores for score in row])
    ious = np.array([iou for answer in answers for iou in answer.ious])
    together = np.array([answer.iou for answer in answers])
    return {
        "objects": reliability(objects, ious >= accepted_iou),
        "answers": reliability(np.array([min(row) for row in scores]), together >= accepted_iou),
    }


def fit_odds(parts: Sequence[Mapping[str, float]], came_true: Flags, names: Sequence[ScorePart]) -> LogisticConfig:
    """The likeliest logistic model of ``came_true`` bool[N] over the log odds of the parts called ``names``."""
    from scipy.optimize import minimize

    inputs = np.array([[1.0, *(log_odds(part[name]) for name in names)] for part in parts])
    signs = np.where(came_true, 1.0, -1.0)
    ridge = np.array([0.0] + [_RIDGE] * len(names))  # the offset is free: it carries the share that comes true

    def loss(values: Values) -> tuple[float, Values]:
        margins = signs * (inputs @ values)
        value = float(np.logaddexp(0.0, -margins).sum() + (ridge * values**2).sum() / 2.0)
        return value, -(inputs.T @ (signs / (1.0 + np.exp(margins)))) + ridge * values

    bounds = [(None, None)] + [(0.0, None)] * len(names)
    offset, *weights = minimize(loss, np.zeros(len(ridge)), jac=True, bounds=bounds, method="L-BFGS-B").x
    return LogisticConfig(
        offset=round(float(offset), 3),
        weights={name: round(float(weight), 3) for name, weight in zip(names, weights, strict=True)},
    )
