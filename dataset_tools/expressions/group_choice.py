"""Which groups of objects may be meant by "the upper row", "the second pair from the left"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.groups import FoundGroup, find_groups, partitions
from dataset_tools.expressions.query import Extreme, Group, Query
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["Score", "groups_meant"]

Score = Callable[[Query, Candidates], Floats]
"""``Fit.score`` of a query in a scene."""
_MOST_GROUPS = 24
"""So many groups that might be meant are placed in the image."""
_SURE = 0.6
"""A group of those that are liked in itself is so good that no others are looked for."""
_HARDLY = 0.05
"""Who meets what is said of the members less than this is in no such group."""
_GROUPS = 5
"""So many groups are considered for one expression."""


def groups_meant(
    group: Group, liked: Floats, scene: Candidates, here: Floats, score: Score
) -> list[tuple[Bools, float]]:
    """(bool[N], weight in [0, 1]) of the groups that may be meant; none if no group is seen.

    Args:
        group: what is said of it.
        liked: float64[N] in [0, 1], how well each candidate meets what is said of the members.
        scene: all candidates.
        here: float64[N], above 0 for those of the kind asked for.
        score: judges the groups as things with boxes of their own.
    """
    return _counted_groups(group, liked, scene, here, score) or _likely_groups(group, liked, scene, here, score)


def _counted_groups(
    group: Group, liked: Floats, scene: Candidates, here: Floats, score: Score
) -> list[tuple[Bools, float]]:
    """As ``_likely_groups``, for "the second row": the rank-th of all groups, by each way to deal objects to them."""
    order = next((c for c in group.place if isinstance(c, Extreme)), None)
    if order is None or order.rank < 2 or group.shape not in ("row", "column", "cluster", "pair"):
        return []
    peers = (liked >= 0.5) & (here > 0)
    result: list[tuple[Bools, float]] = []
    for parts in partitions(scene.boxes, peers, group.shape):
        if group.shape == "pair":
            parts = [p for p in parts if len(p.members) == 2]
            parts = [replace(p, fit=2.0 * len(parts) / int(peers.sum())) for p in parts]
        if len(parts) < order.rank:
            continue
        placed = _group_places(group, parts, scene, score)
        best = int(placed.argmax())
        size = len(parts[best].members)
        wanted = 1.0 if group.count in (None, size) else 0.2
        single = 0.4 if size == 1 else 1.0
        mask: Bools = np.zeros(len(here), bool)
        mask[list(parts[best].members)] = True
        result.append((mask, parts[best].fit * wanted * single))
    top = max((weight for _, weight in result), default=0.0)
    return [(mask, weight / top) for mask, weight in result]


def _likely_groups(
    group: Group, liked: Floats, scene: Candidates, here: Floats, score: Score
) -> list[tuple[Bools, float]]:
    """(bool[N], weight in [0, 1]) of the groups that may be meant, best first."""
    found: dict[tuple[int, ...], float] = {}
    everyone = (here > 0) & (liked >= _HARDLY)
    chosen = (liked >= 0.5) & everyone
    liking = liked.tolist()
    for peers, weight in ((chosen, 1.0), (everyone, 0.8)):
        if weight < 1.0 and ((chosen == everyone).all() or max(found.values(), default=0.0) >= _SURE):
            break
        for one in find_groups(scene.boxes, peers, group.shape, group.count, scene.gaps):
            value = weight * one.fit * sum(liking[i] for i in one.members) / len(one.members)
            found[one.members] = max(found.get(one.members, 0.0), value)
        if group.shape == "any" and group.count and peers.sum() >= group.count:
            order = np.argsort(-liked, kind="stable")
            best = tuple(sorted(int(i) for i in order[: group.count]))
            behind = float(liked[order[group.count]]) if len(order) > group.count else 0.0
            lead = float(np.clip(1.0 - behind / max(float(liked[list(best)].min()), 1e-9), 0.0, 1.0))
            value = (0.1 + 0.8 * lead) * sum(liking[i] for i in best) / len(best)
            found[best] = max(found.get(best, 0.0), value)
    if not found:
        return []
    likeliest = sorted(found.items(), key=lambda item: -item[1])[:_MOST_GROUPS]
    ranked = [FoundGroup(members, value) for members, value in likeliest]
    weights = np.array([one.fit for one in ranked])
    if group.place and len(ranked) > 1:
        weights = weights * _group_places(group, ranked, scene, score)
    total = max(len(one.members) for one in ranked)
    if group.count is None:  # "the row": rather the long one
        weights = weights * np.array([(len(one.members) / total) ** 0.35 for one in ranked])
    order = np.argsort(-weights, kind="stable")[:_GROUPS]
    top = float(weights[order[0]])
    result: list[tuple[Bools, float]] = []
    for i in order:
        if weights[i] >= 0.15 * top and top > 0:
            mask: Bools = np.zeros(len(here), bool)
            mask[list(ranked[int(i)].members)] = True
            result.append((mask, float(weights[i] / top)))
    return result


def _group_places(group: Group, found: list[FoundGroup], scene: Candidates, score: Score) -> Floats:
    """How well each group, as one thing with a box of its own, meets what is said of it."""
    boxes = [
        np.concatenate([own[:, :2].min(axis=0), own[:, 2:].max(axis=0)])
        for own in (scene.boxes[list(one.members)] for one in found)
    ]
    things = scene.with_things(boxes, [one.fit for one in found])
    placed = score(Query("", category=Candidates.GROUP, constraints=group.place), things)
    found_score = placed[len(scene.candidates) :] / np.maximum(things.presence[len(scene.candidates) :], 1e-9)
    return np.asarray(found_score / max(float(found_score.max()), 1e-9), np.float64)
