"""The score of a pre-label from its parts: a calibrated probability where the config has one, else a mean that orders.

Calibrated, it is the probability that the mask is accepted unchanged, taken as an IoU with the truth of at least
``accepted_iou``. It is the product of two logistic models over the log odds of the parts: that the right object was
found, and that a found object is outlined that well. One model for both would mix up what the parts speak of: small
vehicles are found with certainty and outlined badly, so the grounder's doubts would count for nothing.
``backend.evaluation.score_calibration`` fits both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from backend.pipeline.config import LogisticConfig, ScoreConfig

__all__ = ["combine_scores", "geometric_mean", "log_odds"]

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
    return _probability(config.found, scores) * _probability(config.outlined, scores)


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


def _probability(model: LogisticConfig, scores: Mapping[str, float]) -> float:
    value = model.offset + sum(weight * log_odds(scores[part]) for part, weight in model.weights.items())
    return 1.0 / (1.0 + math.exp(-value))
