"""Which of the labelled boxes a query describes: position, order, size, colour and relations, computed over boxes.

Everything is soft. A box is a detection that exists with the probability ``score``; a condition gives each box a
score in [0, 1]; an order ("the leftmost", "the second largest") is judged over the boxes that exist and meet the
conditions (see :func:`dataset_tools.expressions.spatial_scores.ranked`). The product orders the candidates. So a box
a few pixels off, a doubtful detection at the border or a missed one costs confidence and not at once the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dataset_tools.categories import category_named
from dataset_tools.expressions.appearance import View
from dataset_tools.expressions.candidates import Candidates, LabelledBox
from dataset_tools.expressions.certainty import ENOUGH, chance_of, is_ordered, is_plain
from dataset_tools.expressions.meanings import certainty_of
from dataset_tools.expressions.query import Query, Size
from dataset_tools.expressions.query_scores import Fit, fit
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["Choice", "LabelledBox", "choose"]

ChoiceCode = Literal["absent", "ambiguous", "unknown-category", "unknown-word", "empty-expression"]
MOST_OFFERED = 4
"""So many candidates are offered at most where there is no answer."""

_ABSENT_BELOW = 0.012
"""No candidate meets the conditions better than this: what the words describe is not there."""
_ALIKE_IN_WORDS = 0.02
_ALIKE_IN_PRESENCE = 0.3
"""Two candidates are told apart if the words fit them differently, or one is that much likelier to exist at all."""
_MAINLY, _GUESSED = 0.75, 0.9
"""Share of the objects that are of one kind from which "the white one" is taken for one of them, and how sure that is
where there are no others."""
_CLEAR_SET = 0.4
"""So far the last of several must be ahead of the first left out, where looks and relations tell them apart."""
_MEMBER = 0.5
"""Meets the conditions well enough for "all the ..."."""


@dataclass(frozen=True)
class Choice:
    """What a query describes among the candidates.

    Attributes:
        indices: into the candidates, best first: the one, or all for "all the ..."; where there is no answer the
            objects that come closest, at most four, none if no object is of the kind asked for.
        code: None if there is an answer.
        message: why there is none, for the annotator; empty if there is one.
        margin: how far the best is ahead of the second best (for "all": the last chosen of the first left out), in
            [0, 1].
        scores: how well each candidate fits, in [0, 1], in the candidates' order; 0 for other categories.
        unread: words that mean something and took no part in the choice.
        chance: probability in [0, 1] that the chosen object is the one meant, given that all boxes are right.
    """

    indices: tuple[int, ...]
    code: ChoiceCode | None = None
    message: str = ""
    margin: float = 0.0
    scores: tuple[float, ...] = ()
    unread: tuple[str, ...] = ()
    chance: float = 0.0


def choose(
    query: Query, candidates: Sequence[LabelledBox], image_size: tuple[int, int], view: View | None = None
) -> Choice:
    """The candidates that ``query`` describes.

    Args:
        query: from :func:`dataset_tools.expressions.parser.parse`.
        candidates: boxes of any categories; those of other categories serve the relations.
        image_size: (height, width) in pixels.
        view: what else is seen in the image, for "on the grass" and "by the red roof"; None if it was not looked at.

    A query with no noun ("the upper one") takes the candidates if all are of one category. A condition on something
    that is neither a candidate nor seen in the image ("near the lighthouse") counts as unread: it is passed over where
    the other words single out one object.
    """
    none = tuple(0.0 for _ in candidates)
    if query.is_empty:
        return Choice(
            (), "empty-expression", "The expression is empty: say what to look for, e.g. 'the ship'.", 0.0, none
        )
    category = query.category
    sure = certainty_of(query.noun)
    if category is None and not query.unknown_words:
        category, sure = _kind_meant(query, candidates)
    if category is None:
        word = " ".join(query.unknown_words)
        what = f"{word!r} is no known category" if word else "The expression names no object"
        return Choice((), "unknown-category", f"{what}: use a word such as 'ship' or 'tennis court'.", 0.0, none)
    scene = Candidates.of(candidates, image_size, view)
    category = scene.category_of(replace(query, category=category)) or category
    if len(Candidates.categories_of(query)) > 1:  # "court": of either kind
        scene = scene.merged(Candidates.categories_of(query), category)
    found = fit(replace(query, category=category), scene)
    known = category_named(category)
    seen = int(scene.of_category(category).sum())
    if not seen:
        return Choice((), "absent", f"No {known.display} was found in the image.", 0.0, none, query.unread)
    unread = tuple(dict.fromkeys((*query.unread, *found.missing)))
    scores = tuple(float(value) for value in found.score)
    if _is_absent(found):
        text = f"{seen} found, none fits {_quoted(query)}"
        return Choice(
            _offered(found.score), "absent", f"No such {known.display} in the image: {text}.", 0.0, scores, unread
        )
    if query.is_all:
        return _several(query, known.plural, found, scene, scores, unread)
    return _one(query, known.display, found, scene, scores, unread, sure)


def _kind_meant(query: Query, candidates: Sequence[LabelledBox]) -> tuple[str | None, float]:
    """(category, how sure) where no noun says it ("the white one at the end of the pier"): the most frequent one of
    those that the sentence does not refer to; None if there is no such one."""
    present = Counter(c.category for c in candidates)
    if len(present) == 1:
        return next(iter(present)), 1.0
    for part in query.parts:
        present.pop(part.category or "", None)
    if not present or not query.constraints:
        return None, 1.0
    category, number = present.most_common(1)[0]
    share = number / present.total()
    return (category, _GUESSED * share) if share >= _MAINLY else (None, 1.0)


def _is_absent(found: Fit) -> bool:
    """Whether no candidate meets the conditions; the more are said, the less each has to be met."""
    conditions = max(1.0, 0.5 * len(found.conditions))
    return bool(found.doubted.max() < _ABSENT_BELOW**conditions or found.score.max() <= 0)


def _quoted(query: Query) -> str:
    return repr(query.text.strip()[:120])


def _offered(score: Floats) -> tuple[int, ...]:
    order = np.argsort(-score, kind="stable")[:MOST_OFFERED]
    return tuple(int(i) for i in order if score[i] > 0)


def _one(
    query: Query,
    display: str,
    found: Fit,
    scene: Candidates,
    scores: tuple[float, ...],
    unread: tuple[str, ...],
    sure: float,
) -> Choice:
    """``sure``: probability of the category, in (0, 1]."""
    score = found.score
    order = np.argsort(-score, kind="stable")
    best = int(order[0])
    margin = float(1.0 - score[order[1]] / score[best]) if len(order) > 1 and score[best] > 0 else 1.0
    conditions = tuple(condition for condition, _ in found.conditions)
    plain = is_plain(conditions, unread, scene.kinds)
    rivals = _alike(score, scene.presence, best)
    effective = float(np.sqrt(score / max(float(score[best]), 1e-300)).sum())
    sized = len(conditions) > 1 and any(isinstance(condition, Size) for condition in conditions)
    chance = sure * chance_of(margin, len(unread), effective, plain=plain, ordered=is_ordered(conditions), sized=sized)
    if unread and chance < ENOUGH:
        words = ", ".join(repr(word) for word in unread)
        message = f"{words} could not be read, and the rest of {_quoted(query)} does not single out one {display}."
        return Choice(_offered(score), "unknown-word", message, margin, scores, unread, chance)
    if int(rivals.sum()) < 2 and chance >= ENOUGH:
        return Choice((best,), None, "", margin, scores, unread, chance)
    alike = max(int(rivals.sum()), int((score >= 0.5 * score[best]).sum()))
    message = f"{alike} objects fit {_quoted(query)} about alike: say which, e.g. 'the leftmost {display}'."
    offered = _offered(score)
    if chance >= ENOUGH:  # only those: the others do not fit
        offered = offered[:alike]
    return Choice(offered, "ambiguous", message, margin, scores, unread, chance)


def _alike(score: Floats, presence: Floats, best: int) -> Bools:
    """Which candidates nothing tells apart from ``best``."""
    words = score / np.maximum(presence, 1e-9)
    rivals = (score >= (1.0 - _ALIKE_IN_PRESENCE) * score[best]) & (words >= (1.0 - _ALIKE_IN_WORDS) * words[best])
    return np.asarray(rivals & (score > 0))


def _all_plain(found: Fit, unread: tuple[str, ...], kinds: Collection[str]) -> bool:
    return is_plain(tuple(condition for condition, _ in found.conditions), unread, kinds)


def _several(
    query: Query,
    display: str,
    found: Fit,
    scene: Candidates,
    scores: tuple[float, ...],
    unread: tuple[str, ...],
) -> Choice:
    fits, score = found.fits, found.score
    order = np.argsort(-score, kind="stable")
    counted = query.count is not None and query.count > 1
    if counted:
        chosen = [int(i) for i in order[: query.count] if score[i] > 0.1 * score[order[0]]]
    else:
        chosen = [int(i) for i in order if fits[i] >= _MEMBER]
    chosen = chosen or [int(i) for i in order if fits[i] >= 0.7 * fits.max() and score[i] > 0]
    left_out = np.delete(score, chosen).max(initial=0.0)
    margin = float(np.clip(1.0 - left_out / max(score[chosen].min(), 1e-9), 0.0, 1.0))
    if counted and len(chosen) < (query.count or 0):
        message = (
            f"Only {len(chosen)} of {query.count} {display} were found for {_quoted(query)}: say which, or how many."
        )
        return Choice(_offered(score), "ambiguous", message, margin, scores, unread)
    doubtful = unread if not counted else unread and margin < _CLEAR_SET
    if doubtful and (len(chosen) > 1 or counted) and (score > 0).sum() > (len(chosen) if counted else 1):
        words = ", ".join(repr(word) for word in unread)
        message = f"{words} could not be read: say which {display} in other words, or 'all the {display}'."
        return Choice(_offered(score), "unknown-word", message, margin, scores, unread)
    if query.constraints and not _all_plain(found, unread, scene.kinds) and margin < _CLEAR_SET:
        message = f"It is not clear which {display} {_quoted(query)} takes in: say where they are, or how many."
        return Choice(_offered(score), "ambiguous", message, margin, scores, unread)
    if counted and np.delete(_alike(score, scene.presence, chosen[-1]), chosen).any():
        message = f"More than {len(chosen)} objects fit {_quoted(query)}: say which, or 'all the {display}'."
        return Choice(_offered(score), "ambiguous", message, margin, scores, unread)
    return Choice(
        tuple(chosen),
        None,
        "",
        margin,
        scores,
        unread,
        chance_of(margin, len(unread), 1, plain=not unread, ordered=False),
    )
