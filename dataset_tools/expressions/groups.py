"""Groups that objects of one kind form in an image: rows (also tilted ones), columns, pairs and clusters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.query import GroupShape
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["FoundGroup", "find_groups", "partitions"]

_REACHES = (0.35, 0.8, 1.5, 3.0)
"""Gaps, in mean object sizes, up to which neighbours belong to one cluster."""
_STEP, _MOST_CUTS = 1.25, 3
"""Two distances in such a ratio set clusters apart; so many ways to do that are tried."""
_NATURAL = 0.7
_ROW_GAP = 3.5
_MOST = 60
Links = list[tuple[float, int, int]]
"""(pixels, one, other): gaps between boxes."""


@dataclass(frozen=True)
class FoundGroup:
    """Objects that belong together.

    Attributes:
        members: indices of the objects, in no order.
        fit: how well they have the shape and the number asked for, in [0, 1].
    """

    members: tuple[int, ...]
    fit: float


def find_groups(
    boxes: Floats, peers: Bools, shape: GroupShape, count: int | None, gaps: Floats | None = None
) -> list[FoundGroup]:
    """Groups of the shape among the ``peers``, best first.

    Args:
        boxes: float64[N, 4] in pixels.
        peers: bool[N], those of the kind asked for.
        shape: see :class:`dataset_tools.expressions.query.Group`.
        count: how many it should have, None if any number will do.
        gaps: float64[N, N], ``spatial_scores.gaps`` of the boxes, where they are known already.
    """
    here = np.flatnonzero(peers)
    if len(here) < 2:
        return []
    own = boxes[here]
    names = here.tolist()
    found: dict[tuple[int, ...], float] = {}
    apart = spatial.gaps(own, own) if gaps is None else gaps[np.ix_(here, here)]
    for indices, fit in _candidates(own, apart, shape):
        fit = fit * _counted(len(indices), count, shape)
        key = tuple(names[i] for i in indices)  # both ascending
        found[key] = max(found.get(key, 0.0), fit)
    if shape in ("any", "cluster", "pair") and (count is None or len(here) == count):
        found.setdefault(tuple(int(i) for i in here), 0.9 * _counted(len(here), count, shape))
    ordered = sorted(found.items(), key=lambda item: -item[1])[:_MOST]
    return [FoundGroup(members, fit) for members, fit in ordered if fit > 0.02]


def partitions(boxes: Floats, peers: Bools, shape: GroupShape) -> list[list[FoundGroup]]:
    """Ways to deal all ``peers`` to groups of the shape, single ones too: what "the second row" counts in.

    Rows and columns are told by gaps across them, clusters by the gap that is widest beside those within.
    """
    here = np.flatnonzero(peers)
    if len(here) < 2:
        return []
    own = boxes[here]
    found: dict[tuple[tuple[int, ...], ...], float] = {}
    if shape in ("row", "column"):
        middles, extent = spatial.centers(own), own[:, 2:] - own[:, :2]
        across = 1 if shape == "row" else 0
        angles = [0.0] if shape == "row" else [np.pi / 2]
        angles += [
            angle for angle, _ in _angles(own, _between_middles(own))[2:] if shape == "row" or abs(np.sin(angle)) >= 0.7
        ]
        for angle in angles:
            normal = np.array([-np.sin(angle), np.cos(angle)])
            offset, depth = middles @ normal, float(np.median(extent[:, across]))
            order = np.argsort(offset, kind="stable")
            cuts = np.flatnonzero(np.diff(offset[order]) > 0.5 * depth) + 1
            parts = tuple(tuple(sorted(int(here[i]) for i in part)) for part in np.split(order, cuts))
            steep = shape == "row" and abs(np.sin(angle)) >= 0.7
            found[parts] = max(found.get(parts, 0.0), 1.0 if angle in (0.0, np.pi / 2) else 0.8 if steep else 0.9)
    else:
        gaps = spatial.gaps(own, own)
        size = _middle_size(own)
        for reach in _REACHES:
            linked = [tuple(int(here[i]) for i in part) for part in _connected(gaps <= reach * size)]
            alone = [(int(i),) for i in here if not any(int(i) in part for part in linked)]
            if linked:
                found[tuple(sorted([*linked, *alone]))] = 1.0
        for apart in (gaps, _between_middles(own)):
            links = _shortest_links(apart)
            for place, (most, _, _) in enumerate(_cuts(links, size)):
                linked = [tuple(int(here[i]) for i in part) for part in _linked_by(links, len(own), most)]
                alone = [(int(i),) for i in here if not any(int(i) in part for part in linked)]
                found.setdefault(tuple(sorted([*linked, *alone])), 0.9 - 0.2 * place)
    return [[FoundGroup(part, fit) for part in parts] for parts, fit in found.items() if 1 < len(parts) <= 9]


def _counted(size: int, count: int | None, shape: GroupShape) -> float:
    if shape == "pair":
        count = 2
    if count is None:
        return 1.0 if size > 1 else 0.0
    return (1.0, 0.25, 0.1)[min(abs(size - count), 2)] if size > 1 else 0.0


def _candidates(boxes: Floats, gaps: Floats, shape: GroupShape) -> Iterator[tuple[list[int], float]]:
    number, size, apart = len(boxes), _middle_size(boxes), _between_middles(boxes)
    if shape in ("any", "pair", "cluster"):
        links = _shortest_links(gaps)
        yield from _clusters(links, size, number)
        for found in (links, _shortest_links(apart)):
            yield from ((part, _NATURAL * fit) for part, fit in _natural_clusters(found, size, number))
    if shape == "row":
        yield from _chains(gaps, _shortest_links(gaps), size)
    if shape in ("row", "column", "any"):
        for angle, liking in _angles(boxes, apart):
            if shape == "column":
                liking *= float(spatial.sigmoid(np.array((abs(np.sin(angle)) - 0.6) / 0.1)))
            elif shape == "any":
                liking *= 0.6
            yield from _lines(boxes, angle, liking)


def _middle_size(boxes: Floats) -> float:
    """Pixels: the median of the square roots of the areas."""
    return float(np.median(np.sqrt(spatial.sizes(boxes, "area"))))


def _clusters(links: Links, size: float, number: int) -> Iterator[tuple[list[int], float]]:
    """Connected by small gaps; the better the further away the others are."""
    for reach in _REACHES:
        for part, inner, outer in _linked(links, number, reach * size):
            inner = max(inner, 0.2 * size)
            yield part, min(max(0.4 + 0.6 * (min(outer, 4 * inner) / inner - 1) / 1.5, 0.3), 1.0)


def _linked(links: Links, number: int, most: float) -> Iterator[tuple[list[int], float, float]]:
    """Groups as of ``_linked_by``, each with its longest link within and the shortest to another one, in pixels."""
    label, parts = _labelled(links, number, most)
    inner, outer = [0.0] * number, [math.inf] * number
    for gap, one, other in links:
        if label[one] == label[other]:
            inner[label[one]] = max(inner[label[one]], gap)
        else:  # of the links that connect all by the shortest way one is the shortest way out of each group
            for end in (label[one], label[other]):
                outer[end] = min(outer[end], gap)
    for part in parts:
        name = label[part[0]]
        yield part, inner[name], outer[name]


def _between_middles(boxes: Floats) -> Floats:
    """float64[N, N] in pixels: boxes of tilted objects overlap, their middles are apart."""
    x, y = spatial.centers(boxes).T
    return np.asarray(np.hypot(np.subtract.outer(x, x), np.subtract.outer(y, y)), np.float64)


def _cuts(links: Links, size: float) -> list[tuple[float, float, float]]:
    """(length, inner, outer) in pixels: up to which links hold together where a much longer one comes next."""
    lengths = sorted(max(gap, 0.1 * size) for gap, _, _ in links)
    steps = [(outer / inner, inner, outer) for inner, outer in pairwise(lengths)]
    chosen = sorted((step for step in steps if step[0] >= _STEP), reverse=True)[:_MOST_CUTS]
    return [((inner * outer) ** 0.5, inner, outer) for _, inner, outer in chosen]


def _natural_clusters(links: Links, size: float, number: int) -> Iterator[tuple[list[int], float]]:
    """Connected by distances that are short beside the next longer ones."""
    for most, inner, outer in _cuts(links, size):
        fit = min(max(0.4 + 0.6 * (outer / inner - 1) / 0.8, 0.3), 1.0)
        yield from ((part, fit) for part in _linked_by(links, number, most))


def _shortest_links(apart: Floats) -> Links:
    """The N - 1 distances (pixels, one, other) that connect all boxes by the shortest way (Prim's algorithm)."""
    number = len(apart)
    left = apart.copy()  # to those that are not connected yet
    left[:, 0] = np.inf
    nearest, to = left[0].copy(), np.zeros(number, np.int64)
    links: Links = []
    for _ in range(number - 1):
        new = int(nearest.argmin())
        links.append((float(nearest[new]), int(to[new]), new))
        left[:, new] = nearest[new] = np.inf
        to[left[new] < nearest] = new
        np.minimum(nearest, left[new], out=nearest)
    return links


def _linked_by(links: Links, number: int, most: float) -> list[list[int]]:
    """Groups of two and more of ``number`` boxes that links of at most ``most`` pixels connect."""
    return _labelled(links, number, most)[1]


def _labelled(links: Links, number: int, most: float) -> tuple[list[int], list[list[int]]]:
    """A name for the group of each box, and the groups of two and more."""
    label = list(range(number))
    members = [[index] for index in range(number)]
    for gap, one, other in links:
        old, new = label[one], label[other]
        if gap <= most and old != new:
            if len(members[old]) > len(members[new]):
                old, new = new, old
            for index in members[old]:
                label[index] = new
            members[new] += members[old]
            members[old] = []
    return label, sorted(sorted(part) for part in members if len(part) > 1)


def _chains(gaps: Floats, links: Links, size: float) -> Iterator[tuple[list[int], float]]:
    """Rows that bend: clusters in which each has one or two next to it."""
    for reach in _REACHES[:3]:
        for part in _linked_by(links, len(gaps), reach * size):
            if len(part) <= 3:
                continue
            beside = (gaps[np.ix_(part, part)] <= reach * size).sum(axis=1) - 1
            if (beside <= 2).all() and (beside == 1).sum() == 2:
                yield part, 0.95


def _angles(boxes: Floats, apart: Floats) -> list[tuple[float, float]]:
    """Directions in which neighbours follow one another, in radians in [0, pi), with a liking in [0, 1].

    ``apart``: float64[N, N], pixels between the boxes' middles.
    """
    angles = [(0.0, 1.0), (np.pi / 2, 0.75)]
    if len(boxes) < 3:
        return angles
    middles = spatial.centers(boxes)
    nearest = (apart + np.diag(np.full(len(apart), np.inf))).argmin(axis=1)
    offset = middles[nearest] - middles
    doubled = np.exp(2j * (np.arctan2(offset[:, 1], offset[:, 0]) % np.pi))
    starts = np.exp(
        -2j * np.linspace(0.0, np.pi, 8, endpoint=False)
    )  # rows of different directions each have their own
    near = np.abs(np.angle(starts[:, None] * doubled)) < 0.5
    counts, means = near.sum(axis=1), np.angle(near @ doubled) / 2 % np.pi
    modes = [(int(n), float(mean)) for n, mean in zip(counts, means, strict=True) if n >= 3]
    for _, main in sorted(modes, reverse=True)[:3]:
        if all(_turn(main, known) > 0.12 for known, _ in angles):
            angles.append((main, 0.95))
    return angles


def _turn(angle: float, other: float) -> float:
    """Between two directions of a line, in radians in [0, pi / 2]."""
    apart = abs(angle - other) % np.pi
    return float(min(apart, np.pi - apart))


def _lines(boxes: Floats, angle: float, liking: float) -> Iterator[tuple[list[int], float]]:
    """Chains of boxes side by side along ``angle``."""
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    middles, extent = spatial.centers(boxes), boxes[:, 2:] - boxes[:, :2]
    depth = (extent * np.abs(across)).sum(axis=1)
    width = (extent * np.abs(along)).sum(axis=1)
    aside = np.abs(np.subtract.outer(middles @ across, middles @ across))
    ahead = np.abs(np.subtract.outer(middles @ along, middles @ along)) - np.add.outer(width, width) / 2
    gap = ahead / np.maximum(np.maximum.outer(width, width), 1e-6)  # a box may be a line
    one, other = np.nonzero(np.triu((aside <= 0.45 * np.minimum.outer(depth, depth)) & (gap <= _ROW_GAP), 1))
    links = list(zip(gap[one, other].tolist(), one.tolist(), other.tolist(), strict=True))
    on_line, off_line = (middles @ along).tolist(), (middles @ across).tolist()
    for reach in (1.2, _ROW_GAP):
        for part in _linked_by(links, len(boxes), reach):
            length, width_of_line = ([axis[i] for i in part] for axis in (on_line, off_line))
            spread = (max(length) - min(length)) / max(max(width_of_line) - min(width_of_line), 1e-6)
            yield part, liking / (1.0 + math.exp(min((1.5 - spread) / 0.4, 40.0)))


def _connected(linked: Bools) -> list[list[int]]:
    """Connected components of two and more of a symmetric relation bool[N, N]."""
    number = len(linked)
    label = np.arange(number)
    pairs = np.argwhere(linked)
    if len(pairs) <= 3 * number:  # few: one by one
        return _linked_by([(0.0, int(one), int(other)) for one, other in pairs.tolist() if one < other], number, 0.0)
    while True:  # everyone takes the least label among the neighbours, and then that one's own
        least = np.minimum(np.where(linked, label[None], number).min(axis=1, initial=number), label)
        least = least[least]
        if (least == label).all():
            break
        label = least
    parts: dict[int, list[int]] = {}
    for index, own in enumerate(label.tolist()):
        parts.setdefault(own, []).append(index)
    return [part for part in parts.values() if len(part) > 1]
