"""How well candidates stand to others as a relation says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.landmarks import landmark_scores, toward
from dataset_tools.expressions.query import Direction, Query, Relation
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["Weigh", "distance_to", "relation_scores"]

Weigh = Callable[[Query], Floats | None]
"""Probability of each candidate to be (one of) a target, None if there is none to go by."""
_MAX_PAIRS = 66
_AROUND: tuple[Direction, ...] = ((1, None), (1, 1), (None, 1), (-1, 1), (-1, None), (-1, -1), (None, -1), (1, -1))
"""Going around, each opposite to the fourth after it."""


def distance_to(relation: Relation, scene: Candidates, weigh: Weigh) -> Floats | None:
    """Pixels to the nearest plausible target: between borders, and a little by the middles to break ties."""
    weight = weigh(relation.targets[0])
    if weight is None:
        return None
    nearest = scene.distances[:, weight >= 0.5 * weight.max()].min(axis=1)
    far = 10.0 * float(np.hypot(*scene.image_size))
    return np.asarray(np.where(np.isfinite(nearest), nearest, far), np.float64)


def relation_scores(
    relation: Relation, scene: Candidates, peers: Bools, weigh: Weigh, *, single: bool
) -> Floats | None:
    """float64[N] in [0, 1]; None if a target is neither among the candidates nor seen in the image."""
    weights = [weigh(target) for target in relation.targets]
    if relation.kind == "between" and any(weight is None for weight in weights):
        return _between_landmarks(relation.targets, weights, scene)
    if len(weights) == 1 and weights[0] is None:
        kind = "near" if relation.kind == "end" else relation.kind
        return landmark_scores(relation.targets[0], kind, relation.direction, scene, peers)
    known = [w for w in weights if w is not None]
    if len(known) < len(weights):
        return None
    weight = known[0]
    boxes = scene.boxes
    pairs: Floats
    match relation.kind:
        case "between":
            return _between(known, scene)
        case "surrounded":
            return spatial.surrounded(boxes, boxes, weight)
        case "direction":
            pairs = spatial.directed(boxes, boxes, relation.direction)
            if single:  # the next one in that direction is meant rather than one behind it
                weight_of_near, reach = (0.4, 0.2) if None not in relation.direction else (0.6, 0.12)
                nearness = np.exp2(-scene.gaps / (reach * np.hypot(*scene.image_size)))
                pairs = pairs * (1.0 - weight_of_near + weight_of_near * nearness)
        case "near" | "nearest":
            pairs = scene.nearness
        case "end":
            pairs = scene.nearness * spatial.at_end(boxes, boxes)
        case "far" | "farthest":
            pairs = 1.0 - scene.nearness
        case "on" | "in":
            share = spatial.inside(boxes, boxes)
            pairs = np.maximum(spatial.sigmoid((share - 0.35) / 0.08), 0.3 * scene.nearness)
            if relation.direction != (None, None):  # "under the bridge" is also said of what lies below it
                pairs = np.maximum(pairs, 0.9 * spatial.directed(boxes, boxes, relation.direction))
        case "holds":
            share = spatial.inside(boxes, boxes).T
            pairs = np.maximum(spatial.sigmoid((share - 0.35) / 0.08), 0.5 * scene.nearness)
        case "larger" | "smaller":
            logs = np.log(scene.sizes("area"))
            pairs = spatial.sigmoid((logs[:, None] - logs[None]) / 0.15 * (1 if relation.kind == "larger" else -1))
        case "similar":
            logs = np.log(scene.sizes("area"))
            pairs = np.exp(-np.abs(logs[:, None] - logs[None]) / 0.3)
    pairs = pairs.copy()
    if single and relation.kind == "near":  # the nearest is meant rather than one that is near as well
        distance = distance_to(relation, scene, weigh)
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


def _between(weights: list[Floats], scene: Candidates) -> Floats:
    """Between two targets, or between any two of the one plural target ("between the harbors")."""
    if len(weights) > 1:
        pairs = [(int(a), int(b)) for a in np.argsort(-weights[0])[:6] for b in np.argsort(-weights[1])[:6] if a != b]
    else:
        pairs = list(combinations((int(i) for i in np.argsort(-weights[0])[:12]), 2))[:_MAX_PAIRS]
    chance = np.array([weights[0][a] * weights[-1][b] for a, b in pairs])
    likely = [pair for pair, value in zip(pairs, chance, strict=True) if value > 0]
    if not likely:
        return np.zeros(len(scene.boxes))
    fits = spatial.between(scene.boxes, scene.boxes[[a for a, _ in likely]], scene.boxes[[b for _, b in likely]])
    for place, pair in enumerate(likely):
        fits[list(pair), place] = 0.0
    return np.asarray((fits * chance[chance > 0]).max(axis=1), np.float64)


def _between_landmarks(targets: Sequence[Query], weights: Sequence[Floats | None], scene: Candidates) -> Floats | None:
    """Between two of which at least one is no candidate: one lies on one side and the other on the opposite side."""
    ends = list(zip(targets, weights, strict=True))
    sides = []
    for target, weight in (ends[0], ends[-1]):
        found = [_beside(target, weight, direction, scene) for direction in _AROUND]
        known = [f for f in found if f is not None]
        most = max((float(f.max()) for f in known), default=0.0)
        if len(known) < len(_AROUND) or most < 0.08:
            return None
        sides.append(np.stack(known) / most)
    half = len(_AROUND) // 2
    return np.asarray(np.sqrt(sides[0] * np.roll(sides[1], half, axis=0)).max(axis=0), np.float64)


def _beside(target: Query, weight: Floats | None, direction: Direction, scene: Candidates) -> Floats | None:
    """float64[N]: how much each lies in a direction from a target, be it a candidate or not."""
    if weight is None:
        return toward(target, direction, scene)
    pairs = spatial.directed(scene.boxes, scene.boxes, direction) * scene.nearness * weight[None]
    np.fill_diagonal(pairs, 0.0)
    return np.asarray(pairs.max(axis=1), np.float64)
