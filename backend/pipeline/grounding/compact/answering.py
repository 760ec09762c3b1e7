"""From all detections of an image to those that an expression means, and how sure that is.

Detections are doubtful, and orders hang on all of them: the second ship from the left is another one if the first is a
wave. So what an answer is worth is asked of the relation program itself: it chooses once more with each doubtful object
left out, or taken for certain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial

from backend.pipeline.grounding.compact.detections import Detection
from backend.pipeline.grounding.compact.network import Calibration
from backend.pipeline.types import Abstention, Grounding, GroundingResult, Image
from dataset_tools.categories import KINDS
from dataset_tools.colors import Rgb
from dataset_tools.expressions import relations
from dataset_tools.expressions.appearance import Look, View, look_at, view_of
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.certainty import ENOUGH
from dataset_tools.expressions.landmarks import mentions_surroundings
from dataset_tools.expressions.query import Query
from dataset_tools.geometry import Box

__all__ = ["AskedOf", "Chosen", "answer"]

_PLAUSIBLE = 0.08
"""Probability from which a detection is considered for a place in an order or as what a relation refers to."""
_EVEN = 0.42
"""Probability from which an object belongs to "all the ..."; as ``_PLAUSIBLE``, chosen on training and validation."""
_CERTAIN = 0.9
"""Objects that fit alike make an expression ambiguous if at least two of them are this probable."""
_SURE, _MOST_DOUBTS, _MOST_CANDIDATES = 0.95, 8, 200
"""Objects below this probability are doubted, the most doubtful so many, where there are at most so many candidates."""

Chosen = tuple[relations.Choice, list[Grounding], tuple[Grounding, ...]]
"""The choice, the candidates that its indices mean, and all plausible objects of the category."""


def answer(
    query: Query,
    detections: Sequence[Detection],
    calibration: Calibration,
    image_size: tuple[int, int],
    color_of: Callable[[Box], Rgb | None] | None = None,
    image: Image | None = None,
) -> GroundingResult:
    """Pick the detections that ``query`` describes; pure, so that it can be measured with true boxes.

    A score is the probability that the object is there, less what unread words leave open, less the chance that another
    object would be meant if the detector is wrong about one of the doubtful ones.

    Args:
        query: its category is one of the detector's, or None where the words name none ("the upper one").
        detections: everything found in the image, best first.
        calibration: what their scores mean.
        image_size: (height, width) in pixels.
        color_of: colour of what is in a box; None to pass over colour words.
        image: where further looks and the surroundings are measured, if the words ask for them; None not to.
    """
    asked = AskedOf(query, calibration, image_size, color_of, image)
    groundings = asked.groundings(detections)
    found = asked.result(asked.choose(groundings))
    steady = asked.steadiness(groundings, found)
    weighed = tuple(replace(one, score=one.score * steady) for one in found.groundings)
    return replace(found, groundings=weighed)


class AskedOf:
    """A query about one image, whose objects are measured once, however often it is chosen among them.

    Args: as of ``answer``.
    """

    def __init__(
        self,
        query: Query,
        calibration: Calibration,
        image_size: tuple[int, int],
        color_of: Callable[[Box], Rgb | None] | None = None,
        image: Image | None = None,
    ) -> None:
        self._query, self._calibration, self._size, self._image = query, calibration, image_size, image
        self._named = Candidates.categories_of(query)
        self._color = cache(color_of) if color_of is not None and query.mentions_color else None
        self._look: Callable[[Box], Look | None] | None = None
        if image is not None and query.mentions_looks:
            self._look = cache(partial(look_at, image))

    def groundings(self, detections: Sequence[Detection]) -> list[Grounding]:
        """What was found, with probabilities. A kind is found once more as what it is a kind of: without its word it is
        no object of its own.
        """
        wanted = {*self._named, *self._query.target_categories}
        return [
            Grounding(d.box, self._calibration.probability(d.category, d.score), d.category)
            for d in detections
            if d.category not in KINDS or d.category in wanted
        ]

    def choose(self, groundings: Sequence[Grounding]) -> Chosen:
        """Which of ``groundings``, best first, the words mean."""
        named, query = self._named, self._query
        subjects = [g for g in groundings if (not named or g.category in named) and g.score >= _PLAUSIBLE]
        considered = tuple(subjects)
        enough = [g for g in subjects if g.score >= self._calibration.answer]
        if query.is_all or query.category is None:
            # Orders weigh doubtful objects by their probability; a list of objects has to draw the line, and draws it
            # lower only where it would be empty though "the ..." had an answer.
            even = [g for g in enough if g.score >= _EVEN]
            subjects = even or (enough if query.is_all else [])
        elif not enough:
            subjects = []
        referred = query.target_categories - set(named)
        candidates = subjects + [g for g in groundings if g.category in referred and g.score >= _PLAUSIBLE]
        labelled = self.labelled(candidates)
        return relations.choose(query, labelled, self._size, self.view), candidates, considered

    def result(self, chosen: Chosen) -> GroundingResult:
        """What a choice answers."""
        choice, candidates, considered = chosen
        alike = choice.code == "ambiguous" and choice.chance >= ENOUGH
        if alike and sum(candidates[i].score >= _CERTAIN for i in choice.indices) < 2:
            # "the airplane" says that there is one: of a good detection and doubtful ones the good one is meant.
            return GroundingResult((candidates[choice.indices[0]],), None, considered)
        if choice.code is not None:
            closest = tuple(candidates[i] for i in choice.indices) or considered
            unread = choice.unread if choice.code == "unknown-word" else ()
            return GroundingResult((), Abstention(choice.code, choice.message, closest, unread), considered)
        certainty = choice.chance if choice.unread else 1.0
        found = (replace(candidates[i], score=candidates[i].score * certainty) for i in choice.indices)
        return GroundingResult(tuple(found), None, considered)

    def steadiness(self, groundings: Sequence[Grounding], found: GroundingResult) -> float:
        """Probability that no doubtful object changes the answer ``found``, each by itself; 1 for "all the ...", whose
        objects do not depend on one another.
        """
        answered = {one.box for one in found.groundings}
        if not answered or self._query.is_all or len(found.candidates) > _MOST_CANDIDATES:
            return 1.0
        concerned = {*self._query.target_categories, *(one.category for one in (*found.groundings, *found.candidates))}
        doubtful = [
            one
            for one in groundings
            if one.category in concerned and _PLAUSIBLE <= one.score <= _SURE and one.box not in answered
        ]
        steady = 1.0
        for one in sorted(doubtful, key=lambda g: -min(g.score, 1 - g.score))[:_MOST_DOUBTS]:
            others = [other for other in groundings if other is not one]
            supposed = others if one.score >= 0.5 else [replace(one, score=1.0), *others]
            if {other.box for other in self.result(self.choose(supposed)).groundings} != answered:
                steady *= 1 - min(one.score, 1 - one.score)
        return steady

    def labelled(self, groundings: Sequence[Grounding]) -> list[relations.LabelledBox]:
        """The candidates with as much measured of them as the words ask for."""
        color, look = self._color, self._look
        return [
            relations.LabelledBox(
                g.box,
                g.category or "",
                g.score,
                None if color is None else color(g.box),
                look=None if look is None else look(g.box),
            )
            for g in groundings
        ]

    @cached_property
    def view(self) -> View | None:
        """The surroundings, where the words ask for them."""
        return view_of(self._image) if self._image is not None and mentions_surroundings(self._query) else None
