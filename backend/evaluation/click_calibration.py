"""The number beside a click's suggestion as the same probability that a pre-label's score is: accepted as it is.

Fitted on what an annotator is shown who clicks each object of a dataset until its mask is good, and who draws a box
around it; on the segmenter's own parts alone, since nobody had to find the object. See ``score_calibration``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from backend.evaluation.clicks import Shown, boxed, corrected, supposing
from backend.evaluation.expressions import jittered
from backend.evaluation.score_calibration import FOLDS, Reliability, fit_odds, folds, reliability, require_both
from backend.pipeline import PslgSam
from backend.pipeline.config import LogisticConfig, ScorePart
from backend.pipeline.scores import probability
from backend.pipeline.types import Box, Image, Mask, NamedImage
from dataset_tools import metrics
from dataset_tools.labelled import LabelledImage, LabelledObject

__all__ = ["ShownMask", "cross_fitted", "fit", "observe", "scored"]

_PARTS: tuple[ScorePart, ...] = ("predicted_iou", "stability")
_MOST_CLICKS = 6
"""After so many an annotator takes the brush; later masks would be of a few hard objects only."""
_BOX_JITTER = 0.05
"""Boxes drawn by hand are off by so much of their sides."""


@dataclass(frozen=True)
class ShownMask:
    """One mask that was shown.

    Attributes:
        image: what the folds are made of.
        by: what it was shown for, the last click or a box.
        parts: the segmenter's parts of a score.
        iou: with the object that was meant.
    """

    image: str
    by: Literal["click", "box"]
    parts: Mapping[str, float]
    iou: float


def observe(
    pipeline: PslgSam,
    targets: Iterable[tuple[LabelledImage, LabelledObject]],
    read_image: Callable[[Path], Image],
    accepted_iou: float = 0.85,
) -> list[ShownMask]:
    """Click and box each object; no further click is made where ``accepted_iou`` is reached.

    Args:
        pipeline: answers the clicks.
        targets: objects with their images, those of one image in succession; those without pixels are left out.
        read_image: gives uint8[H, W, 3] RGB.
        accepted_iou: IoU from which a mask counts as accepted unchanged.
    """
    found: list[ShownMask] = []
    path: Path | None = None
    for labelled, target in targets:
        if path != labelled.path:
            path, image = labelled.path, NamedImage.of(read_image(labelled.path))
        mask = target.mask()
        if not mask.any():
            continue
        for by, shown in _shown(pipeline, image, target.category, mask, accepted_iou):
            parts: dict[str, float] = {part: float(getattr(shown.prediction, part)) for part in _PARTS}
            found.append(ShownMask(labelled.path.name, by, parts, metrics.iou(shown.mask, mask)))
    return found


def _shown(
    pipeline: PslgSam, image: NamedImage, label: str, target: Mask, accepted_iou: float
) -> Iterator[tuple[Literal["click", "box"], Shown]]:
    segmenter, supposed = pipeline.segmenter, supposing(pipeline, image, label)
    embed = cache(partial(segmenter.embed, image.pixels(), key=image.identity))
    tight = Box.of_mask(target)
    height, width = target.shape
    drawn = jittered(tight, _BOX_JITTER, zlib.crc32(repr(tight).encode())).clip(width, height)
    yield "box", boxed(segmenter, embed, (height, width), drawn)
    for shown in corrected(segmenter, embed, target, cap=_MOST_CLICKS, supposed=supposed):
        yield "click", shown
        if metrics.iou(shown.mask, target) >= accepted_iou:
            return


def fit(masks: Sequence[ShownMask], accepted_iou: float = 0.85) -> LogisticConfig:
    """The model under which ``masks`` are likeliest; raises ConfigError for too few, or all of them good or bad."""
    accepted = _accepted(masks, accepted_iou)
    require_both(f"clicked or boxed masks with an IoU of {accepted_iou}", accepted)
    return fit_odds([mask.parts for mask in masks], accepted, _PARTS)


def scored(masks: Sequence[ShownMask], model: LogisticConfig | None, accepted_iou: float) -> dict[str, Reliability]:
    """How reliable the numbers shown are: after ``clicks``, and for ``boxes``; without a model the predicted IoU."""
    shown = [mask.parts["predicted_iou"] if model is None else probability(model, mask.parts) for mask in masks]
    return _rated(masks, shown, accepted_iou)


def cross_fitted(masks: Sequence[ShownMask], accepted_iou: float = 0.85, seed: int = 0) -> dict[str, Reliability]:
    """As ``scored``, each mask by a model that saw no mask of its image."""
    fold_of = folds([mask.image for mask in masks], seed)
    models = [fit([mask for mask in masks if fold_of[mask.image] != fold], accepted_iou) for fold in range(FOLDS)]
    return _rated(masks, [probability(models[fold_of[mask.image]], mask.parts) for mask in masks], accepted_iou)


def _rated(masks: Sequence[ShownMask], shown: Sequence[float], accepted_iou: float) -> dict[str, Reliability]:
    numbers, accepted = np.array(shown), _accepted(masks, accepted_iou)
    kinds = np.array([mask.by for mask in masks])
    return {
        name: reliability(numbers[kinds == by], accepted[kinds == by])
        for by, name in (("click", "clicks"), ("box", "boxes"))
        if (kinds == by).any()
    }


def _accepted(masks: Sequence[ShownMask], accepted_iou: float) -> npt.NDArray[np.bool_]:
    return np.array([mask.iou >= accepted_iou for mask in masks], np.bool_)
