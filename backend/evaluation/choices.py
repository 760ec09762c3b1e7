"""Whether the objects chosen are the ones that were meant: right, wrong or abstained, by style of sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dataset_tools.geometry import Box

__all__ = ["MOST_OFFERED", "Picked", "is_exactly", "shares"]

MOST_OFFERED = 4
"""So many candidates are shown at most where there is no answer."""
_SAME_OBJECT = 0.5
"""IoU of boxes from which they mean the same object."""


@dataclass(frozen=True)
class Picked:
    """One sentence.

    Attributes:
        answered: it got a mask at all.
        right: it was answered with exactly its targets.
        offered: it was not, and each target is among the candidates that are offered.
    """

    answered: bool
    right: bool
    offered: bool

    @classmethod
    def of(cls, chosen: Sequence[Box], offered: Sequence[Box], targets: Sequence[Box]) -> Picked:
        """By the boxes chosen, those offered where none was chosen, best first, and the targets' (all in pixels)."""
        shown = () if chosen else offered[:MOST_OFFERED]
        among = bool(targets) and all(any(t.iou(box) >= _SAME_OBJECT for box in shown) for t in targets)
        return cls(bool(chosen), bool(chosen) and is_exactly(chosen, targets), among)


def is_exactly(boxes: Sequence[Box], targets: Sequence[Box]) -> bool:
    """Whether each box is one of the targets (IoU of at least 0.5), and each target one of the boxes."""
    if len(boxes) != len(targets):
        return False
    left = list(boxes)
    for target in targets:
        best = max(left, key=target.iou)
        if target.iou(best) < _SAME_OBJECT:
            return False
        left.remove(best)
    return True


def shares(choices: Sequence[Picked]) -> dict[str, Any]:
    """``n``, and as fractions of it ``right``, ``wrong``, ``abstained``; ``offered`` is one of the abstained."""
    number = max(len(choices), 1)
    right = sum(one.right for one in choices)
    answered = sum(one.answered for one in choices)
    abstained = len(choices) - answered
    return {
        "n": len(choices),
        "right": right / number,
        "wrong": (answered - right) / number,
        "abstained": abstained / number,
        "offered": sum(one.offered for one in choices) / max(abstained, 1),
    }
