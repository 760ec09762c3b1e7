"""The score of a pre-label from its parts: a calibrated probability where the config has one, else a mean that orders.

Calibrated, it is the probability that the mask is accepted unchanged, taken as an IoU with the truth of at least
``accepted_iou``. It is the product of two logistic models over the log odds of the parts: that the right object was
found, and that a found object is outlined that well. One model for both would mix up what the parts speak of: small
vehicles are found with certainty and outlined badly, so the grounder's doubts would count for nothing.
The number beside a click's suggestion is the same probability, of a mask whose object the annotator has pointed at: a
third model, of the segmenter's own parts alone. ``backend.evaluation.score_calibration`` fits all three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from backend.pipeline.config import LogisticConfig, ScoreConfig
from backend.pipeline.types import MaskPrediction

__all__ = ["clicked_score", "combine_scores", "geometric_mean", "log_odds", "probability"]

_EDGE = 0.02
"""Log odds grow without bound towards 0 and 1, what a part says does not."""


def combine_scores(scores: Mapping[str, float], config: ScoreConfig | None = None) -> float:
    """The score in [0, 1] of a pre-label with these parts; rises with every part or stays.

    Args:
        scores: ``grounding``, ``predicted_iou``, ``stability``, and ``boundary_agreement`` where MBO ran.
        config: the calibration; None gives the geometric mean.
    """
    if config is None:
        return geometric_mean(scores)
    return probability(config.found, scores) * probability(config.outlined, scores)


def clicked_score(prediction: MaskPrediction, config: ScoreConfig | None = None) -> float:
    """The score in [0, 1] of a mask that clicks or a drawn box led to.

    Args:
        prediction: as the segmenter gave it.
        config: the calibration; without one, or without its part for clicks, it is the predicted IoU.
    """
    if config is None or config.clicked is None:
        return min(max(prediction.predicted_iou, 0.0), 1.0)
    return probability(config.clicked, {part: getattr(prediction, part) for part in config.clicked.weights})


def geometric_mean(scores: Mapping[str, float]) -> float:
    """The geometric mean of the parts, in [0, 1].

    One part near 0 (a box that hardly fits the expression, a mask that hardly holds together) is enough reason to
    look, which an arithmetic mean would hide.
    """
    values = [min(max(value, 0.0), 1.0) for value in scores.values()]
    return math.prod(values) ** (1.0 / len(values))


def log_odds(score: float) -> float:
    """The log odds of a part in [0, 1], which is held away from both ends."""
    held = min(max(score, _EDGE), 1.0 - _EDGE)
    return math.log(held / (1.0 - held))


def probability(model: LogisticConfig, scores: Mapping[str, float]) -> float:
    """The probability, in [0, 1], that ``model`` gives to these parts."""
    value = model.offset + sum(weight * log_odds(scores[part]) for part, weight in model.weights.items())
    return 1.0 / (1.0 + math.exp(-value))
