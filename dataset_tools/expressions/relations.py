"""Which of the labelled boxes a query describes: position, order, size, colour and relations, computed over boxes.

Everything is soft. A box is a detection that exists with the probability ``score``; a condition gives each box a
score in [0, 1]; an order ("the leftmost", "the second largest") is judged over the boxes that exist and meet the
conditions (see :func:`dataset_tools.expressions.spatial_scores.ranked`). The product orders the candidates. So a box
a few pixels off, a doubtful detection at the border or a missed one costs confidence and not at once the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dataset_tools.categories import category_named
from dataset_tools.expressions.query import Query
from dataset_tools.expressions.query_scores import LabelledBox, Scene, fit
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["Choice", "LabelledBox", "choose"]

ChoiceCode = Literal["absent", "ambiguous", "unknown-category", "empty-expression"]

_ABSENT_BELOW = 0.03
"""No candidate meets the conditions better than this: what the words describe is not there."""
_ALIKE_IN_WORDS = 0.02
_ALIKE_IN_PRESENCE = 0.3
"""Two candidates are told apart if the words fit them differently, or one is that much likelier to exist at all."""
_MEMBER = 0.5
"""Meets the conditions well enough for "all the ..."."""


@dataclass(frozen=True)
class Choice:
    """What a query describes among the candidates.

    Attributes:
        indices: into the candidates, best first: the one, or all for "all the ..."; for ``ambiguous`` every candidate
            that fits about as well as the best; else empty.
        code: None if there is an answer.
        message: why there is none, for the annotator; empty if there is one.
        margin: how far the best is ahead of the second best (for "all": the last chosen of the first left out), in
            [0, 1].
        scores: how well each candidate fits, in [0, 1], in the candidates' order; 0 for other categories.
    """

    indices: tuple[int, ...]
    code: ChoiceCode | None = None
    message: str = ""
    margin: float = 0.0
    scores: tuple[float, ...] = ()


def choose(query: Query, candidates: Sequence[LabelledBox], image_size: tuple[int, int]) -> Choice:
    """The candidates that ``query`` describes.

    Args:
        query: from :func:`dataset_tools.expressions.parser.parse`.
        candidates: boxes of any categories; those of other categories serve the relations.
        image_size: (height, width) in pixels.

    A query with no noun ("the upper one") takes the candidates if all are of one category. A condition on something
    that is no candidate ("near the river") is passed over.
    """
    none = tuple(0.0 for _ in candidates)
    if query.is_empty:
        return Choice(
            (), "empty-expression", "The expression is empty: say what to look for, e.g. 'the ship'.", 0.0, none
        )
    category = query.category
    kinds = {candidate.category for candidate in candidates}
    if category is None and not query.unknown_words and len(kinds) == 1:
        category = kinds.pop()
    if category is None:
        word = " ".join(query.unknown_words)
        what = f"{word!r} is no known category" if word else "The expression names no object"
        return Choice((), "unknown-category", f"{what}: use a word such as 'ship' or 'tennis court'.", 0.0, none)
    scene = Scene.of(candidates, image_size)
    fits, score = fit(replace(query, category=category), scene)
    known = category_named(category)
    display = known.display
    seen = int(scene.of_category(category).sum())
    if not seen:
        return Choice((), "absent", f"No {display} was found in the image.", 0.0, none)
    scores = tuple(float(value) for value in score)
    if fits.max() < _ABSENT_BELOW or score.max() <= 0:
        found = f"{seen} found, none fits {query.text.strip()[:120]!r}"
        return Choice((), "absent", f"No such {display} in the image: {found}.", 0.0, scores)
    if query.is_all:
        return _several(query, known.plural, fits, score, scene.presence, scores)
    return _one(query, display, score, scene.presence, scores)


def _one(query: Query, display: str, score: Floats, presence: Floats, scores: tuple[float, ...]) -> Choice:
    order = np.argsort(-score, kind="stable")
    best = int(order[0])
    margin = float(1.0 - score[order[1]] / score[best]) if len(order) > 1 and score[best] > 0 else 1.0
    rivals = _alike(score, presence, best)
    alike = tuple(int(i) for i in order if rivals[i])
    if len(alike) < 2:
        return Choice((best,), None, "", margin, scores)
    message = f"{len(alike)} objects fit {query.text.strip()[:120]!r} alike: say which, e.g. 'the leftmost {display}'."
    return Choice(alike, "ambiguous", message, margin, scores)


def _alike(score: Floats, presence: Floats, best: int) -> Bools:
    """Which candidates nothing tells apart from ``best``."""
    words = score / np.maximum(presence, 1e-9)
    rivals = (score >= (1.0 - _ALIKE_IN_PRESENCE) * score[best]) & (words >= (1.0 - _ALIKE_IN_WORDS) * words[best])
    return np.asarray(rivals & (score > 0))


def _several(
    query: Query, display: str, fits: Floats, score: Floats, presence: Floats, scores: tuple[float, ...]
) -> Choice:
    order = np.argsort(-score, kind="stable")
    counted = query.count is not None and query.count > 1
    if counted:
        chosen = [int(i) for i in order[: query.count] if fits[i] >= 0.4 * _MEMBER]
    else:
        chosen = [int(i) for i in order if fits[i] >= _MEMBER]
    chosen = chosen or [int(i) for i in order if fits[i] >= 0.7 * fits.max()]
    left_out = np.delete(score, chosen).max(initial=0.0)
    margin = float(np.clip(1.0 - left_out / max(score[chosen].min(), 1e-9), 0.0, 1.0))
    if counted and np.delete(_alike(score, presence, chosen[-1]), chosen).any():
        alike = tuple(int(i) for i in order if score[i] > 0 and fits[i] >= 0.4 * _MEMBER)
        message = (
            f"More than {len(chosen)} objects fit {query.text.strip()[:120]!r}: say which, or 'all the {display}'."
        )
        return Choice(alike, "ambiguous", message, margin, scores)
    return Choice(tuple(chosen), None, "", margin, scores)
