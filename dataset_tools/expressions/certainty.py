"""The chance that the object which fits best is the one that was meant."""

from __future__ import annotations

import numpy as np

from dataset_tools.expressions.query import Color, Constraint, Part, Relation, Shape, Size, State

__all__ = ["ENOUGH", "chance_of", "is_plain"]

ENOUGH = 0.64
"""With a smaller chance the expression is not answered: a wrong object is worse than a question. Chosen by hand on
``tune`` among 0.61 to 0.68: the highest at which plain sentences of the tests ("the right white ship") are answered."""
_BASE, _MARGIN, _CLEAR, _UNREAD_CLEAR, _RIVALS = 1.36, 1.72, 0.10, -0.26, -1.23
"""Log odds: fitted on 324 sentences that people would write (part ``tune`` of ``benchmarks.wordings``; cross-fitted by
image, area under the ROC curve 0.81). Unread words cost where the rest would otherwise be beyond doubt: elsewhere
the margin says it already."""
_PLAIN = 0.97


def is_plain(conditions: tuple[Constraint, ...], unread: tuple[str, ...]) -> bool:
    """Whether all was read, and all is about places, orders, sizes and relations, which boxes tell without doubt."""
    if unread:
        return False
    for condition in conditions:
        if isinstance(condition, Color | Part | Shape | State) or (
            isinstance(condition, Size) and not condition.superlative
        ):
            return False
        if isinstance(condition, Relation) and any(target.category is None for target in condition.targets):
            return False
    return True


def chance_of(margin: float, unread: int, rivals: float, *, plain: bool) -> float:
    """Probability in (0, 1).

    Args:
        margin: how far the best is ahead of the next, in [0, 1].
        unread: number of words and targets that took no part.
        rivals: effective number of candidates: the sum of the square roots of their scores, the best one's being 1.
        plain: see :func:`is_plain`.
    """
    if plain:
        return _PLAIN
    odds = (
        _BASE
        + _MARGIN * margin
        + (_CLEAR + _UNREAD_CLEAR * min(unread, 3)) * (margin > 0.9)
        + _RIVALS * np.log(max(rivals, 1.0))
    )
    return float(1.0 / (1.0 + np.exp(-odds)))
