"""A query and a choice in words: what was understood, what was passed over, how each candidate fared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataset_tools.categories import category_named
from dataset_tools.expressions.appearance import View
from dataset_tools.expressions.candidates import Candidates, LabelledBox
from dataset_tools.expressions.query import (
    Among,
    Color,
    Constraint,
    Direction,
    Extreme,
    Group,
    Part,
    Place,
    Query,
    Relation,
    Shape,
    Size,
    State,
)
from dataset_tools.expressions.query_scores import fit
from dataset_tools.expressions.relations import Choice
from dataset_tools.geometry import Box

__all__ = ["Explanation", "explain", "in_words"]

_X = {-1: "left", 0: "middle", 1: "right"}
_Y = {-1: "upper", 0: "middle", 1: "lower"}
_SIZES = {
    ("area", 1): "large",
    ("area", -1): "small",
    ("length", 1): "long",
    ("length", -1): "short",
    ("width", 1): "wide",
    ("width", -1): "narrow",
}
_MOST = 12
"""So many candidates are listed at most."""


@dataclass(frozen=True)
class Explanation:
    """What became of an expression.

    Attributes:
        lines: for the annotator: the query, the words passed over, each candidate with the score of each condition.
        boxes: number in ``lines`` -> box in pixels, best first.
    """

    lines: tuple[str, ...]
    boxes: Mapping[int, Box]


def _where(direction: Direction) -> str:
    x, y = direction
    if direction == (0, 0):
        return "middle"
    return " ".join(
        word for word in (_Y.get(y) if y is not None else None, _X.get(x) if x is not None else None) if word
    )


def in_words(part: Query | Constraint) -> str:
    """One line for a query or one of its conditions."""
    text = _plain(part)
    return f"not ({text})" if not isinstance(part, Query) and part.negated else text


def _plain(part: Query | Constraint) -> str:
    match part:
        case Query():
            noun = category_named(part.category).display if part.category else part.noun or "object"
            number = "all " if part.is_all and part.count is None else f"{part.count} " if part.count else ""
            said = ", ".join(in_words(c) for c in part.constraints)
            return f"{number}{noun}" + (f" ({said})" if said else "")
        case Place():
            return f"{_where(part.direction)} {'of the image' if part.of_image else 'one'}"
        case Extreme():
            return f"number {part.rank} from the {_where(part.direction)}"
        case Size():
            degree = f"number {part.rank} in being" if part.superlative else ""
            return f"{degree} {_SIZES[part.measure, part.sign]}".strip()
        case Color() | Shape():
            return part.name
        case Part():
            return f"{part.color} {part.noun or 'in part'}"
        case State():
            return " ".join(word for word in (part.name, _where(part.direction)) if word)
        case Group():
            shape = "group" if part.shape == "any" else part.shape
            said = ", ".join(in_words(c) for c in (*part.place, *part.members))
            return f"in a {shape}" + (f" of {part.count}" if part.count else "") + (f" ({said})" if said else "")
        case Among():
            return f"one of: {in_words(part.pool)}"
        case Relation():
            what = _where(part.direction) if part.kind == "direction" else part.kind
            return f"{what} -> {' and '.join(in_words(target) for target in part.targets)}"


def explain(
    query: Query,
    choice: Choice,
    candidates: Sequence[LabelledBox],
    image_size: tuple[int, int],
    view: View | None = None,
) -> Explanation:
    """How ``choice`` came about.

    The arguments are those of :func:`dataset_tools.expressions.relations.choose`, and its result.
    """
    lines = [f"understood: {in_words(replace(query, text=''))}"]
    lines.append(f"passed over: {', '.join(choice.unread) if choice.unread else 'nothing'}")
    scene = Candidates.of(candidates, image_size, view)
    category = scene.category_of(query) or next(iter(scene.kinds) if len(scene.kinds) == 1 else iter(()), None)
    if category is not None and len(Candidates.categories_of(query)) > 1:  # "court": of either kind
        scene = scene.merged(Candidates.categories_of(query), category)
    found = fit(replace(query, category=category), scene)
    order = np.argsort(-found.score, kind="stable")
    boxes: dict[int, Box] = {}
    for number in [int(i) for i in order if scene.candidates[int(i)].category == category][:_MOST]:
        boxes[number] = candidates[number].box
        box = ", ".join(f"{value:.0f}" for value in candidates[number].box)
        parts = "; ".join(f"{in_words(c)} {values[number]:.2f}" for c, values in found.conditions)
        mark = "*" if choice.code is None and number in choice.indices else " "
        lines.append(f"{mark} candidate {number} ({box}): {found.score[number]:.3f}" + (f" [{parts}]" if parts else ""))
    if choice.code is None:
        lines.append(f"chosen: {', '.join(map(str, choice.indices))}, chance {choice.chance:.2f}")
    else:
        lines.append(f"no answer ({choice.code}): {choice.message}")
    return Explanation(tuple(lines), boxes)
