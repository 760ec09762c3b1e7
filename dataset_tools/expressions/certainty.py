"""The chance that the object which fits best is the one that was meant."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from dataset_tools.expressions.query import Color, Constraint, Extreme, Part, Place, Relation, Shape, Size, State

__all__ = ["ENOUGH", "chance_of", "is_ordered", "is_plain"]

ENOUGH = 0.70
"""With a smaller chance the expression is not answered: a wrong object is worse than a question."""
_BASE, _MARGIN, _RIVALS, _PLAIN, _SIZED = 0.57, 3.51, -0.9, 1.7, -0.8
"""Log odds, fitted on 969 sentences for one object: ``tune`` of people's own sentences, and those of ours
(tests/data/sentences.jsonl); cross-fitted by image, area under the ROC curve 0.88. For plain ones the fit gave 0.6:
rule-made sentences, nearly all of which are right however small the margin, want more."""
_UNREAD, _ORDER_UNREAD = 0.01, (0.11, -0.89)
"""What was not read may say in which set an order counts ("the third plane at the terminal"): then a clear margin says
little."""


def is_plain(conditions: tuple[Constraint, ...], unread: tuple[str, ...], kinds: Collection[str | None]) -> bool:
    """Whether all was read, and all is about places, orders, sizes and relations, which boxes tell without doubt.

    ``kinds``: categories of the candidates: what else is referred to is only seen, or not even that.
    """
    if unread:
        return False
    for condition in conditions:
        if isinstance(condition, Color | Part | Shape | State) or (
            isinstance(condition, Size) and not condition.superlative
        ):
            return False
        if isinstance(condition, Relation) and any(target.category not in kinds for target in condition.targets):
            return False
    return True


def chance_of(margin: float, unread: int, rivals: float, *, plain: bool, ordered: bool, sized: bool = False) -> float:
    """Probability in (0, 1).

    Args:
        margin: how far the best is ahead of the next, in [0, 1].
        unread: number of words and targets that took no part.
        rivals: effective number of candidates: the sum of the square roots of their scores, the best one's being 1.
        plain: see :func:`is_plain`.
        ordered: an order among the candidates decides (see :func:`is_ordered`).
        sized: a size is said beside something else ("the small white boat"): among which it is small is open.
    """
    odds = _BASE + _MARGIN * margin + _UNREAD * min(unread, 3) + _RIVALS * np.log(max(rivals, 1.0)) + _PLAIN * plain
    odds += _SIZED * (sized and not plain)
    if unread and ordered:
        odds += _ORDER_UNREAD[0] + _ORDER_UNREAD[1] * margin
    return float(1.0 / (1.0 + np.exp(-odds)))


def is_ordered(conditions: tuple[Constraint, ...]) -> bool:
    """Whether a place among the candidates or a superlative is asked for."""
    return any(isinstance(c, Extreme | Place) or (isinstance(c, Size) and c.superlative) for c in conditions)
