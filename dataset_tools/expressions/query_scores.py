"""How well each candidate meets the conditions of a query, and how likely it holds the place that is asked for.

Everything is soft. A condition gives each candidate a score in [0, 1]; an order ("the leftmost", "the second largest")
is judged over the candidates that exist and meet the conditions; a group ("in the upper row") is looked for among them,
and the rest is judged within it, once for each group that may be meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.group_choice import groups_meant
from dataset_tools.expressions.object_scores import color_scores, part_scores, shape_scores, state_scores
from dataset_tools.expressions.query import (
    Among,
    Color,
    Constraint,
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
from dataset_tools.expressions.relation_scores import Weigh, distance_to, relation_scores
from dataset_tools.expressions.salience import salience
from dataset_tools.expressions.size_scores import hinted, relative_size
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["Fit", "fit"]

_CONFLICT = 0.02
"""What remains of a candidate that an order speaks against, so that two orders at odds still leave a best one."""
_NO_PRESENCE = 0.03
"""A candidate with less is not counted when it is asked for the fifth."""
_DOUBT_OF_LANDMARKS = 0.25
_SLACK_OF_PLACES, _SLACK_OF_ENDS = 0.015, 0.005
"""Share of the image's diagonal by which two may differ and still both be "at the bottom", both "bottommost"."""
_DOUBT: dict[type, float] = {
    Color: 0.05, Part: 0.25, Size: 0.1, Shape: 0.3, State: 0.15, Relation: 0.05, Place: 0.01, Extreme: 0.01,
    Among: 0.03, Group: 0.05,
}  # fmt: skip
"""What remains of a candidate that a condition speaks against: people err, and so do measurements."""


@dataclass(frozen=True)
class Fit:
    """How candidates fit a query.

    Attributes:
        fits: float64[N], how well each meets all conditions, taken at their word.
        doubted: float64[N], the same with doubt in each condition.
        score: float64[N], ``doubted`` times presence and place in the orders.
        conditions: the scores of each condition, in words of ``explain``; for the annotator.
        missing: nouns that relations refer to and that are neither among the candidates nor seen in the image.
    """

    fits: Floats
    score: Floats
    doubted: Floats
    conditions: tuple[tuple[Constraint, Floats], ...] = ()
    missing: tuple[str, ...] = ()


def fit(query: Query, scene: Candidates, within: Bools | None = None) -> Fit:
    """How the candidates (only those ``within``, if given) fit ``query``."""
    query = replace(query, category=scene.category_of(query))
    here = scene.of_category(query.category)
    if within is not None:
        here = here * within
    if not here.any():
        return Fit(here, here, here)
    groups = [c for c in query.constraints if isinstance(c, Group) and not c.negated]
    if groups:
        return _in_groups(query, groups[0], scene, here)
    return _flat(query, scene, here, of_group=within is not None)


def _flat(query: Query, scene: Candidates, here: Floats, *, of_group: bool) -> Fit:
    """``of_group``: ``here`` are those of a group, of which everyone counts."""
    fits = here.copy()
    doubted = here.copy()
    seen: list[tuple[Constraint, Floats]] = []
    missing: list[str] = []
    noticed = np.ones(len(here)) if of_group else salience(query, scene, here > 0)
    for condition in query.constraints:
        if _is_order(condition, query):
            continue
        peers = (fits > 0) & (noticed >= 0.5)
        values = _condition(condition, query, scene, peers if peers.any() else fits > 0, missing)
        if values is None:
            missing += _nouns(condition)
            continue
        values = 1.0 - values if condition.negated else values
        seen.append((condition, values))
        fits = fits * values
        doubt = _DOUBT[type(condition)]
        if isinstance(condition, Relation) and condition.targets[0].category not in scene.kinds:
            doubt = _DOUBT_OF_LANDMARKS
        doubted = doubted * (doubt + (1.0 - doubt) * values)
    doubted = doubted * hinted(query.hint, scene, here > 0) * noticed
    most = max(float(doubted.max()), 1e-9)  # many conditions shrink all alike; the best of them is there all the same
    presence = scene.presence * doubted / most
    counted = _without_asides(query, seen, scene, here)
    score = scene.presence * doubted
    for order in query.constraints:
        if not _is_order(order, query):
            continue
        inside = bool(here.sum() < scene.of_category(query.category).sum())
        place = _place(order, query, scene, presence, inside=inside)
        if place is not None and counted is not None:
            wider = _place(order, query, scene, counted, inside=inside)
            place = place if wider is None else np.maximum(place, wider)
        if place is None:
            missing += _nouns(order)
            continue
        if order.negated:
            place = 1.0 - place
            fits = fits * place
        else:  # among many alike each has a slim chance; what counts is which has the best
            place = np.minimum(place / max(float((place * (presence > 0)).max()), 1e-300), 1.0)
            if isinstance(order, Relation) and order.targets[0].category not in scene.kinds:
                place = _DOUBT_OF_LANDMARKS + (1 - _DOUBT_OF_LANDMARKS) * place
        seen.append((order, place))
        if getattr(order, "rank", 1) > (presence >= _NO_PRESENCE).sum():  # "the fifth ship" of three
            fits, doubted = fits * 0.0, doubted * 0.0
        score = score * (_CONFLICT + (1.0 - _CONFLICT) * place)
    return Fit(fits, score, doubted, tuple(seen), tuple(missing))


def _without_asides(
    query: Query, seen: list[tuple[Constraint, Floats]], scene: Candidates, here: Floats
) -> Floats | None:
    """float64[N]: who is there to be counted, if what is said of the object itself is left out; None if nothing is."""
    if not query.asides:
        return None
    doubted = here.copy()
    for condition, values in seen:
        if condition not in query.asides:
            doubt = _DOUBT[type(condition)]
            doubted = doubted * (doubt + (1.0 - doubt) * values)
    return np.asarray(scene.presence * doubted / max(float(doubted.max()), 1e-9), np.float64)


def _in_groups(query: Query, group: Group, scene: Candidates, here: Floats) -> Fit:
    """The best of what the rest of the query gives within each group that may be meant."""
    rest = replace(query, constraints=tuple(c for c in query.constraints if c is not group))
    own = tuple(c for c in rest.constraints if isinstance(c, Color | Part | State | Shape) and not c.negated)
    members = fit(replace(query, is_all=True, count=None, constraints=(*group.members, *own)), scene, here > 0)
    liked = members.score / max(float(members.score.max()), 1e-9) * here
    found = groups_meant(group, liked, scene, here, lambda query, things: fit(query, things).score)
    if not found:
        return _merged_flat(group, rest, scene, here, members)
    fits: Floats = np.zeros(len(here))
    score: Floats = np.zeros(len(here))
    doubted: Floats = np.zeros(len(here))
    best: Fit | None = None
    for members_of, weight in found:
        inner = fit(rest, scene, members_of)
        if best is None or weight * inner.score.max() > score.max():
            best = inner
        fits = np.maximum(fits, weight * inner.fits)
        score = np.maximum(score, weight * inner.score)
        doubted = np.maximum(doubted, weight * inner.doubted)
    belongs = np.zeros(len(here))
    for members_of, weight in found:
        belongs = np.maximum(belongs, weight * members_of)
    missing = (*members.missing, *(best.missing if best else ()))
    seen = ((group, belongs), *(best.conditions if best else ()))
    return Fit(fits, score, doubted, seen, missing)


def _merged_flat(group: Group, rest: Query, scene: Candidates, here: Floats, members: Fit) -> Fit:
    """Where no group is seen, its conditions are those of the object: "the left one of the row at the top"."""
    flat = fit(replace(rest, constraints=(*group.place, *group.members, *rest.constraints)), scene, here > 0)
    return replace(flat, missing=(*members.missing, *flat.missing))


def _nouns(condition: Constraint) -> list[str]:
    if isinstance(condition, Relation):
        return [target.noun for target in condition.targets if target.noun]
    return []


def _is_order(constraint: Constraint, query: Query) -> bool:
    """Whether a constraint compares the candidates that meet the others; in "all the ..." hardly any does."""
    if query.is_all and query.count in (None, 1):
        superlative = isinstance(constraint, Extreme) or (isinstance(constraint, Size) and constraint.superlative)
        return superlative and constraint.negated  # "all ships but the largest"
    match constraint:
        case Extreme():
            return True
        case Size():
            return constraint.superlative
        case Place():  # "the largest on the left" is the largest of a side, "the one on the left" the leftmost
            strong = any(not isinstance(c, Place) and _is_order(c, query) for c in query.constraints)
            return not constraint.of_image and not constraint.negated and not strong
        case Relation():
            return constraint.kind in ("nearest", "farthest")
    return False


def _condition(
    constraint: Constraint, query: Query, scene: Candidates, peers: Bools, missing: list[str]
) -> Floats | None:
    """float64[N]; None if there is nothing to judge it by. What its targets lack is added to ``missing``."""
    match constraint:
        case Place() | Extreme():
            filters = query.is_all or any(_is_order(other, query) for other in query.constraints)
            region = spatial.in_region(scene.boxes, constraint.direction, scene.image_size, single=not filters)
            corner = None not in constraint.direction and 0 not in constraint.direction
            if corner and not filters and peers.any():  # of two in the corner the one further in it
                key, noise = spatial.order_key(scene.boxes, constraint.direction, scene.image_size)
                alike = (region > 0.97).astype(np.float64)
                further = 1.0 - spatial.ranked(key, noise, np.asarray(alike * peers, np.float64))
                region = np.asarray(region * (1.0 - 0.2 * alike * further), np.float64)
            if isinstance(constraint, Place) and not constraint.of_image and peers.any() and region[peers].max() < 0.5:
                return spatial.side(scene.boxes, constraint.direction, peers)
            return region
        case Size():
            return relative_size(constraint, scene, peers, single=not query.is_all)
        case Color():
            return color_scores(constraint, scene, peers, single=not query.is_all)
        case Part():
            return part_scores(constraint, scene, peers)
        case Shape():
            return shape_scores(constraint, scene, peers)
        case State():
            return state_scores(constraint, scene, peers)
        case Relation():
            values = relation_scores(constraint, scene, peers, _weigher(scene, missing), single=not query.is_all)
            return _where_unseen(constraint, query, scene, peers, missing) if values is None else values
        case Among():
            return _among(constraint, query, scene, peers)
    return None


def _where_unseen(
    relation: Relation, query: Query, scene: Candidates, peers: Bools, missing: list[str]
) -> Floats | None:
    """ "in the enclosure on the lower right": what is not seen has a place all the same, the object's too."""
    if relation.kind not in ("on", "in", "near", "end", "surrounded") or relation.negated:
        return None
    places = [c for c in relation.targets[0].constraints if isinstance(c, Place | Extreme) and not c.negated]
    if len(places) != 1 or getattr(places[0], "rank", 1) != 1:
        return None
    missing += _nouns(relation)
    return _condition(Place(places[0].direction, of_image=True), query, scene, peers, missing)


def _among(constraint: Among, query: Query, scene: Candidates, peers: Bools) -> Floats | None:
    pool = fit(replace(constraint.pool, category=query.category), scene)
    score = np.clip(pool.score / np.maximum(scene.presence, 1e-9), 0.0, 1.0)
    if constraint.negated and peers.any():
        top = float(score[peers].max())
        if top <= 0 or score[peers].min() > 0.9 * top:  # nothing in it could be read: it excludes nobody
            return None
        score = score / top
    return np.asarray(score, np.float64)


def _weigher(scene: Candidates, missing: list[str] | None = None) -> Weigh:
    def weigh(target: Query) -> Floats | None:
        found = fit(target, scene)
        if missing is not None:
            missing.extend(noun for noun in found.missing if noun not in missing)
        if not found.fits.any() or found.score.max() <= 0:
            return None
        if any(_is_order(c, target) or isinstance(c, Group) for c in target.constraints):
            return np.asarray(
                found.score / found.score.max() * min(1.0, scene.presence[found.score.argmax()]), np.float64
            )
        return found.score

    return weigh


def _place(constraint: Constraint, query: Query, scene: Candidates, presence: Floats, *, inside: bool) -> Floats | None:
    """Probability of the place asked for: the rank-th, or one of the first ``count`` for "the two leftmost".

    ``inside``: only a group is considered, whose own middle counts and not the image's.
    """
    key: Floats
    noise: Floats
    if isinstance(constraint, Size):
        key = np.log(scene.sizes(constraint.measure)) * constraint.sign
        noise = np.full(len(key), 0.04)
    elif isinstance(constraint, Relation):
        distance = distance_to(constraint, scene, _weigher(scene))
        if distance is None:
            return relation_scores(constraint, scene, presence > 0, _weigher(scene), single=True)
        key = -distance if constraint.kind == "nearest" else distance
        noise = 0.03 * np.sqrt(spatial.sizes(scene.boxes, "area")) + 0.5
    elif isinstance(constraint, Place | Extreme):
        key, noise = spatial.order_key(scene.boxes, constraint.direction, scene.image_size)
        slack = _SLACK_OF_PLACES if isinstance(constraint, Place) else _SLACK_OF_ENDS
        noise = np.maximum(noise, (0.0 if inside else slack) * float(np.hypot(*scene.image_size)))
        if isinstance(constraint, Place) and constraint.direction == (0, 0):
            key = spatial.middleness(scene.boxes, presence) + (0.0 if inside else 1.0) * key
        elif inside:
            key = spatial.order_among(scene.boxes, constraint.direction, presence)
    else:
        raise TypeError(f"no order: {constraint}")
    rank = getattr(constraint, "rank", 1)
    last = rank + (query.count or 1) - 1 if query.is_all else rank
    last = min(last, len(presence))
    if last < rank:
        return np.zeros(len(presence))
    place = spatial.places(key, noise, presence, last)[:, rank - 1 :].sum(axis=1)
    return np.asarray(np.clip(place, 0.0, 1.0), np.float64)
