"""How well each labelled box meets the conditions of a query, and how likely it holds the place that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from dataset_tools import colors
from dataset_tools.colors import Rgb
from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.query import (
    Among,
    Color,
    Constraint,
    Extreme,
    Query,
    Region,
    Relation,
    Shape,
    Size,
)
from dataset_tools.expressions.spatial_scores import Bools, Floats
from dataset_tools.geometry import Box

__all__ = ["LabelledBox", "Scene", "fit"]

_CONFLICT = 0.02
"""What remains of a candidate that an order speaks against, so that two orders at odds still leave a best one."""
_NO_PRESENCE = 0.03
"""A candidate with less is not counted when it is asked for the fifth."""
_MAX_PAIRS = 66


@dataclass(frozen=True)
class LabelledBox:
    """A candidate.

    Attributes:
        box: in pixels.
        category: canonical name.
        score: probability in [0, 1] that there is such an object; 1 for ground truth.
        color: as ``dataset_tools.colors`` gives it, or a name; None if not known, which then fits every colour word.
        area: of the object's mask in square pixels; None where only the box is known, whose area then counts.
    """

    box: Box
    category: str
    score: float = 1.0
    color: Rgb | str | None = None
    area: float | None = None


@dataclass(frozen=True)
class Scene:
    """All candidates as arrays.

    Attributes:
        candidates: as given.
        boxes: float64[N, 4] (x0, y0, x1, y1) in pixels.
        presence: float64[N], the candidates' scores clipped to [0, 1].
        image_size: (height, width) in pixels.
    """

    candidates: tuple[LabelledBox, ...]
    boxes: Floats
    presence: Floats
    image_size: tuple[int, int]

    @classmethod
    def of(cls, candidates: Sequence[LabelledBox], image_size: tuple[int, int]) -> Scene:
        """The arrays of ``candidates``."""
        boxes = np.array([c.box for c in candidates], np.float64).reshape(-1, 4)
        presence = np.clip(np.array([c.score for c in candidates], np.float64), 0.0, 1.0)
        return cls(tuple(candidates), boxes, presence, image_size)

    def sizes(self, measure: str) -> Floats:
        """float64[N]: as ``spatial_scores.sizes``, with the masks' areas where they are known."""
        by_box = spatial.sizes(self.boxes, measure)
        if measure != "area":
            return by_box
        known = [candidate.area for candidate in self.candidates]
        return np.array([size if area is None else max(area, 1e-6) for area, size in zip(known, by_box, strict=True)])

    def of_category(self, category: str | None) -> Floats:
        """float64[N]: 1 for candidates of a category, else 0."""
        return np.array([c.category == category for c in self.candidates], np.float64)


def fit(query: Query, scene: Scene) -> tuple[Floats, Floats]:
    """How well each candidate meets the conditions; and that times its presence and its place in the orders."""
    fits = scene.of_category(query.category)
    if not fits.any():
        return fits, fits
    for condition in query.constraints:
        if not _is_order(condition, query):
            fits = fits * _negated(condition, _condition(condition, query, scene, fits > 0))
    presence = scene.presence * fits
    score = presence.copy()
    for order in query.constraints:
        if _is_order(order, query):
            place = _place(order, query, scene, presence)
            if order.negated:
                place = 1.0 - place
                fits = fits * place
            else:  # among many alike each has a slim chance; what counts is which has the best
                place = np.minimum(place / max(float((place * (presence > 0)).max()), 1e-300), 1.0)
            if getattr(order, "rank", 1) > (presence >= _NO_PRESENCE).sum():  # "the fifth ship" of three
                fits = fits * 0.0
            score = score * (_CONFLICT + (1.0 - _CONFLICT) * place)
    return fits, score


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
        case Region():  # "the largest on the left" is the largest of a side, "the one on the left" the leftmost
            strong = any(not isinstance(c, Region) and _is_order(c, query) for c in query.constraints)
            return not constraint.of_image and not constraint.negated and not strong
        case Relation():
            return constraint.kind in ("nearest", "farthest")
    return False


def _negated(constraint: Constraint, score: Floats) -> Floats:
    return 1.0 - score if constraint.negated else score


def _condition(constraint: Constraint, query: Query, scene: Scene, peers: Bools) -> Floats:
    match constraint:
        case Region() | Extreme():
            filters = query.is_all or any(_is_order(other, query) for other in query.constraints)
            region = spatial.in_region(scene.boxes, constraint.direction, scene.image_size, single=not filters)
            if isinstance(constraint, Region) and not constraint.of_image and peers.any() and region[peers].max() < 0.5:
                return spatial.side(scene.boxes, constraint.direction, peers)
            return region
        case Size():
            return _relative_size(constraint, scene, peers, single=not query.is_all)
        case Color():
            return np.array([colors.similarity(constraint.name, c.color) for c in scene.candidates], np.float64)
        case Relation():
            return _relation(constraint, scene, peers, single=not query.is_all)
        case Shape("vertical" | "horizontal"):
            width, height = np.maximum(scene.boxes[:, 2:] - scene.boxes[:, :2], 1e-6).T
            upright = np.log(height / width) * (1 if constraint.name == "vertical" else -1)
            return spatial.sigmoid(upright / 0.25)
        case Among():
            score = fit(replace(constraint.pool, category=query.category), scene)[1]
            return np.asarray(np.clip(score / np.maximum(scene.presence, 1e-9), 0.0, 1.0), np.float64)
    return np.ones(len(scene.candidates))


def _relative_size(constraint: Size, scene: Scene, peers: Bools, *, single: bool) -> Floats:
    """ "large": against the middle of the candidates' sizes; for one object rather the largest than the second."""
    if peers.sum() < 2:
        return np.ones(len(peers))
    logs = np.log(scene.sizes(constraint.measure)) * constraint.sign
    middle = (logs[peers].min() + logs[peers].max()) / 2
    score = spatial.sigmoid((logs - middle) / 0.25 + 0.5)
    if single:
        score = score * (0.5 + 0.5 * spatial.ranked(logs, np.full(len(logs), 0.15), peers.astype(np.float64)))
    return np.asarray(score, np.float64)


def _place(constraint: Constraint, query: Query, scene: Scene, presence: Floats) -> Floats:
    """Probability of the place asked for: the rank-th, or one of the first ``count`` for "the two leftmost"."""
    key: Floats
    noise: Floats
    if isinstance(constraint, Size):
        key = np.log(scene.sizes(constraint.measure)) * constraint.sign
        noise = np.full(len(key), 0.04)
    elif isinstance(constraint, Relation):
        distance = _distance(constraint, scene)
        if distance is None:
            return np.ones(len(presence))
        key = -distance if constraint.kind == "nearest" else distance
        noise = 0.03 * np.sqrt(spatial.sizes(scene.boxes, "area")) + 0.5
    elif isinstance(constraint, Region | Extreme):
        key, noise = spatial.order_key(scene.boxes, constraint.direction, scene.image_size)
        if isinstance(constraint, Region) and constraint.direction == (0, 0):
            middle = np.average(spatial.centers(scene.boxes), axis=0, weights=presence + 1e-9)
            key = key - np.hypot(*(spatial.centers(scene.boxes) - middle).T)
    else:
        raise TypeError(f"no order: {constraint}")
    rank = getattr(constraint, "rank", 1)
    last = rank + (query.count or 1) - 1 if query.is_all else rank
    place = sum(spatial.ranked(key, noise, presence, k) for k in range(rank, min(last, len(presence)) + 1))
    return np.clip(np.asarray(place, np.float64), 0.0, 1.0) * np.ones(len(presence))


def _targets(target: Query, scene: Scene) -> Floats | None:
    """Probability of each candidate to be (one of) the target, None if there is none to go by."""
    fits, score = fit(target, scene)
    if not fits.any() or score.max() <= 0:
        return None
    orders = any(_is_order(c, target) for c in target.constraints)
    return score / score.max() * min(1.0, scene.presence[score.argmax()]) if orders else score


def _distance(relation: Relation, scene: Scene) -> Floats | None:
    """Pixels to the nearest plausible target: between borders, and a little by the middles to break ties."""
    weight = _targets(relation.targets[0], scene)
    if weight is None:
        return None
    pairs = spatial.gaps(scene.boxes, scene.boxes)
    middles = spatial.centers(scene.boxes)
    pairs = pairs + 0.2 * np.hypot(*np.moveaxis(middles[:, None] - middles[None], -1, 0))
    np.fill_diagonal(pairs, np.inf)
    nearest = pairs[:, weight >= 0.5 * weight.max()].min(axis=1)
    far = 10.0 * float(np.hypot(*scene.image_size))
    return np.asarray(np.where(np.isfinite(nearest), nearest, far), np.float64)


def _relation(relation: Relation, scene: Scene, peers: Bools, *, single: bool) -> Floats:
    neutral = np.ones(len(scene.candidates))
    weights = [_targets(target, scene) for target in relation.targets]
    weight = weights[0]
    if weight is None or any(w is None for w in weights):
        return neutral
    boxes = scene.boxes
    pairs: Floats
    match relation.kind:
        case "between":
            return _between([w for w in weights if w is not None], scene)
        case "surrounded":
            return spatial.surrounded(boxes, boxes, weight)
        case "direction":
            pairs = spatial.directed(boxes, boxes, relation.direction)
            if single:  # the next one in that direction is meant rather than one behind it
                pairs = pairs * (0.6 + 0.4 * np.exp2(-spatial.gaps(boxes, boxes) / (0.2 * np.hypot(*scene.image_size))))
        case "near" | "nearest":
            pairs = spatial.near(boxes, boxes, scene.image_size)
        case "far" | "farthest":
            pairs = 1.0 - spatial.near(boxes, boxes, scene.image_size)
        case "on" | "in":
            share = spatial.inside(boxes, boxes)
            pairs = np.maximum(
                spatial.sigmoid((share - 0.35) / 0.08), 0.3 * spatial.near(boxes, boxes, scene.image_size)
            )
            if relation.direction != (None, None):  # "under the bridge" is also said of what lies below it
                pairs = np.maximum(pairs, 0.9 * spatial.directed(boxes, boxes, relation.direction))
        case "holds":
            share = spatial.inside(boxes, boxes).T
            pairs = np.maximum(
                spatial.sigmoid((share - 0.35) / 0.08), 0.5 * spatial.near(boxes, boxes, scene.image_size)
            )
        case "larger" | "smaller":
            logs = np.log(scene.sizes("area"))
            pairs = spatial.sigmoid((logs[:, None] - logs[None]) / 0.15 * (1 if relation.kind == "larger" else -1))
    pairs = pairs.copy()
    if single and relation.kind == "near":  # the nearest is meant rather than one that is near as well
        distance = _distance(relation, scene)
        if distance is not None:
            noise = 0.03 * np.sqrt(spatial.sizes(boxes, "area")) + 0.5
            pairs *= 0.7 + 0.3 * spatial.ranked(-distance, noise, scene.presence * peers)[:, None]
    np.fill_diagonal(pairs, 0.0)
    everyone = relation.kind in ("far", "farthest", "larger", "smaller") or (
        relation.kind == "direction" and relation.targets[0].is_all
    )
    if everyone:
        others = weight[None, :] * (1.0 - np.eye(len(boxes)))
        return np.asarray((pairs * others).sum(axis=1) / np.maximum(others.sum(axis=1), 1e-9), np.float64)
    return np.asarray((pairs * weight[None, :]).max(axis=1), np.float64)


def _between(weights: list[Floats], scene: Scene) -> Floats:
    """Between two targets, or between any two of the one plural target ("between the harbors")."""
    if len(weights) > 1:
        pairs = [(int(a), int(b)) for a in np.argsort(-weights[0])[:6] for b in np.argsort(-weights[1])[:6] if a != b]
    else:
        pairs = list(combinations((int(i) for i in np.argsort(-weights[0])[:12]), 2))[:_MAX_PAIRS]
    score = np.zeros(len(scene.boxes))
    for a, b in pairs:
        chance = weights[0][a] * weights[-1][b]
        if chance > 0:
            fits = chance * spatial.between(scene.boxes, scene.boxes[a], scene.boxes[b])
            fits[[a, b]] = 0.0
            score = np.maximum(score, fits)
    return score
