"""How well boxes fit spatial words: soft scores in [0, 1], vectorised over candidates. Pure numpy.

Boxes are float64[N, 4] (x0, y0, x1, y1) in pixels. Soft, so that a box a few pixels off changes a score a little and
never flips it; all scales are relative to the image or to the boxes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataset_tools.expressions.query import Direction

__all__ = [
    "at_end",
    "between",
    "centers",
    "directed",
    "gaps",
    "in_region",
    "inside",
    "middleness",
    "near",
    "order_among",
    "order_key",
    "places",
    "ranked",
    "side",
    "sigmoid",
    "sizes",
    "surrounded",
    "to_border",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def sigmoid(values: Floats) -> Floats:
    """Logistic function, elementwise."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -40.0, 40.0))), np.float64)


def centers(boxes: Floats) -> Floats:
    """float64[N, 2], the boxes' middles (x, y) in pixels."""
    return np.asarray((boxes[:, :2] + boxes[:, 2:]) / 2)


def sizes(boxes: Floats, measure: str) -> Floats:
    """float64[N], at least 1e-6: ``area`` in pixels squared, ``length`` (longer side) or ``width`` (shorter side)."""
    extent = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    by_measure = {"area": extent.prod(axis=1), "length": extent.max(axis=1), "width": extent.min(axis=1)}
    return np.asarray(np.maximum(by_measure[measure], 1e-6), np.float64)


def in_region(boxes: Floats, direction: Direction, image_size: tuple[int, int], *, single: bool) -> Floats:
    """float64[N]: membership in a part of an image of ``image_size`` (height, width).

    A side is its half, the middle is the middle third. Where a ``single`` object is asked for, the outer third of a
    side fits best, and of "left" without "upper" or "lower" the part at half height fits a little better than the
    corners."""
    height, width = image_size
    score = np.ones(len(boxes))
    inner = 0.08 if single else 0.0
    for axis, extent in ((0, width), (1, height)):
        wanted, position = direction[axis], centers(boxes)[:, axis] / max(extent, 1)
        off_middle = np.abs(position - 0.5)
        if wanted is None:
            score *= 1.0 - 0.4 * sigmoid((off_middle - 0.22) / 0.05) * single
        elif wanted == 0:
            score *= sigmoid((0.21 - off_middle) / 0.05)
        else:
            score *= sigmoid(((position - 0.5) * wanted - inner) / 0.06)
    return score


def side(boxes: Floats, direction: Direction, peers: Bools) -> Floats:
    """float64[N]: membership in a side or corner of the group that ``peers`` bool[N] form, wherever it lies."""
    middles = centers(boxes)
    low, high = middles[peers].min(axis=0), middles[peers].max(axis=0)
    position = (middles - low) / np.maximum(high - low, 1e-6)
    return in_region(np.concatenate([position, position], axis=1), direction, (1, 1), single=False)


def order_key(boxes: Floats, direction: Direction, image_size: tuple[int, int]) -> tuple[Floats, Floats]:
    """How far each box lies in a direction, and by how much that is uncertain, both float64[N], in pixels.

    Sides and corners go by the middle of the box; the middle of the image by the distance to it. The uncertainty
    grows with the box: middles of two large boxes must be further apart to tell which is first.
    """
    height, width = image_size
    middles = centers(boxes)
    x, y = direction
    if (x or 0, y or 0) == (0, 0):
        distance = np.hypot(middles[:, 0] - width / 2, middles[:, 1] - height / 2)
        key = -distance
    elif x is not None and y is not None:  # a corner or the middle of a side: the smaller the distance the better
        key = -np.hypot(middles[:, 0] - width * (x + 1) / 2, middles[:, 1] - height * (y + 1) / 2)
    elif x:
        key = middles[:, 0] * x
    else:
        key = middles[:, 1] * (y or 0)
    return np.asarray(key, np.float64), 0.03 * np.sqrt(sizes(boxes, "area")) + 0.5


def middleness(boxes: Floats, presence: Floats) -> Floats:
    """float64[N]: minus the distance of each box to the middle of those that are there, in pixels."""
    middles = centers(boxes)
    middle = np.average(middles, axis=0, weights=presence + 1e-9)
    return np.asarray(-np.hypot(*(middles - middle).T), np.float64)


def order_among(boxes: Floats, direction: Direction, presence: Floats) -> Floats:
    """float64[N]: how far each box lies in a direction within the group of those that are there, in pixels.

    Of a corner both sides count alike, so that a tilted row has an upper left end.
    """
    x, y = direction
    middles = centers(boxes)
    if (x or 0, y or 0) == (0, 0):
        return middleness(boxes, presence)
    return np.asarray(middles[:, 0] * (x or 0) + middles[:, 1] * (y or 0), np.float64)


def ranked(key: Floats, noise: Floats, presence: Floats, rank: int = 1) -> Floats:
    """float64[N]: probability that each box is the ``rank``-th by ``key`` (highest first); see :func:`places`."""
    return np.asarray(places(key, noise, presence, rank)[:, rank - 1], np.float64)


def places(key: Floats, noise: Floats, presence: Floats, most: int) -> Floats:
    """float64[N, most]: probability that each box is the first, second, ... by ``key`` (highest first), if box j exists
    with ``presence[j]``.

    Each box is judged against all others: the number of those that exist and lie before it follows a Poisson binomial
    distribution. So a doubtful detection before the true one takes little from it. The box's own presence is not
    included; boxes that do not exist get 0.
    """
    found: Floats = np.zeros((len(key), most))
    here = np.flatnonzero(presence > 1e-9)
    if not len(here):
        return found
    scale = np.maximum((noise[here, None] + noise[None, here]) / 2, 1e-9)
    before = sigmoid((key[None, here] - key[here, None]) / scale) * presence[None, here]
    np.fill_diagonal(before, 0.0)
    if most == 1:
        found[here, 0] = (1.0 - before).prod(axis=1)
    else:
        found[here] = _counts(before, most)
    return found


def _counts(chances: Floats, most: int) -> Floats:
    """float64[N, most]: probability that 0, 1, ... of the events of each row of ``chances`` float64[N, M] happen.

    The generating polynomials of two halves are multiplied until one is left, cut off after ``most`` terms.
    """
    terms: Floats = np.zeros((most, chances.shape[1], len(chances)))
    terms[0], terms[1] = 1.0 - chances.T, chances.T
    while terms.shape[1] > 1:
        if terms.shape[1] % 2:
            rest = np.zeros((most, 1, terms.shape[2]))
            rest[0] = 1.0
            terms = np.concatenate([terms, rest], axis=1)
        first, second = terms[:, ::2], terms[:, 1::2]
        product = np.zeros_like(first)
        for k in range(most):
            product[k:] += first[k] * second[: most - k]
        terms = product
    return np.asarray(terms[:, 0].T, np.float64)


def gaps(boxes: Floats, targets: Floats) -> Floats:
    """float64[N, M]: distance between the borders of each box and target in pixels, 0 if they touch or overlap."""
    squares: Floats = np.zeros((len(boxes), len(targets)))
    for low, high in ((0, 2), (1, 3)):
        before = np.subtract.outer(boxes[:, low], targets[:, high])
        after = np.subtract.outer(boxes[:, high], targets[:, low])
        apart = np.maximum(np.maximum(before, -after), 0.0)
        squares += apart * apart
    return np.sqrt(squares)


def directed(boxes: Floats, targets: Floats, direction: Direction) -> Floats:
    """float64[N, M]: whether a box lies in ``direction`` from a target.

    Judged by the angle between the middles and, for a single direction, by the borders too: who is clear of the
    target's outline lies more plainly to its left than who overlaps it. Who is merely further left, far above or
    below, fits badly but better than nobody.
    """
    offset = centers(boxes)[:, None] - centers(targets)[None]
    x, y = direction[0] or 0, direction[1] or 0
    if (x, y) == (0, 0):
        return inside(boxes, targets)
    distance = np.maximum(np.hypot(offset[..., 0], offset[..., 1]), 1e-6)
    cosine = (offset[..., 0] * x + offset[..., 1] * y) / (distance * np.hypot(x, y))
    if x and y:
        return sigmoid((cosine - 0.72) / 0.08)
    axis, sign = (0, x) if x else (1, y)
    near_side, far_side = (axis, axis + 2) if sign > 0 else (axis + 2, axis)
    clearance = (boxes[:, None, near_side] - targets[None, :, far_side]) * sign
    extent = np.sqrt(np.minimum(sizes(boxes, "area")[:, None], sizes(targets, "area")[None]))
    clear = sigmoid((clearance / np.maximum(extent, 1.0) + 0.15) / 0.08)
    straight = sigmoid((cosine - 0.65) / 0.12)
    plain = (0.48 * straight + 0.52 * clear) * sigmoid((cosine - 0.08) / 0.03)
    along = offset[..., axis] * sign / np.maximum(extent, 1.0)
    return np.asarray(np.maximum(plain, 0.12 * sigmoid((along - 0.3) / 0.1)), np.float64)


def near(boxes: Floats, targets: Floats, image_size: tuple[int, int]) -> Floats:
    """float64[N, M]: nearness, 1 when touching, about 0.5 when one (mean) size apart; sizes of both count."""
    size = (np.sqrt(sizes(boxes, "area"))[:, None] + np.sqrt(sizes(targets, "area"))[None]) / 2
    scale = np.maximum(size, 0.05 * float(np.hypot(*image_size)))
    return np.asarray(np.exp2(-gaps(boxes, targets) / scale), np.float64)


def at_end(boxes: Floats, targets: Floats) -> Floats:
    """float64[N, M] in [0.3, 1]: how far a box lies from the middle of a target, beside half the target's diagonal."""
    apart = np.hypot(*np.moveaxis(centers(boxes)[:, None] - centers(targets)[None], -1, 0))
    half = np.hypot(*(targets[:, 2:] - targets[:, :2]).T) / 2
    return np.asarray(0.3 + 0.7 * sigmoid((apart / np.maximum(half, 1.0) - 0.55) / 0.12), np.float64)


def inside(boxes: Floats, targets: Floats) -> Floats:
    """float64[N, M]: the share of each box that lies in the target."""
    low = np.maximum(boxes[:, None, :2], targets[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], targets[None, :, 2:])
    shared = np.maximum(high - low, 0.0).prod(axis=-1)
    return np.asarray(np.clip(shared / sizes(boxes, "area")[:, None], 0.0, 1.0), np.float64)


def between(boxes: Floats, first: Floats, second: Floats) -> Floats:
    """float64[N, P]: whether the middle of a box lies between two targets; P pairs of them, each float64[P, 4]."""
    start, axis = centers(first), centers(second) - centers(first)
    length = np.maximum(np.hypot(axis[:, 0], axis[:, 1]), 1e-6)
    offset = centers(boxes)[:, None] - start[None]
    along = (offset * axis).sum(axis=-1) / length**2
    aside = np.abs(offset[..., 0] * axis[:, 1] - offset[..., 1] * axis[:, 0]) / length
    reach = 0.25 * length + 0.25 * (np.sqrt(sizes(first, "area")) + np.sqrt(sizes(second, "area")))
    score = sigmoid((0.45 - np.abs(along - 0.5)) / 0.06) * sigmoid((reach - aside) / (0.25 * reach + 1e-6))
    return np.asarray(score, np.float64)


def surrounded(boxes: Floats, targets: Floats, presence: Floats) -> Floats:
    """float64[N]: whether the targets lie on all sides of a box, or one of them holds it; ``presence`` float64[M]."""
    if not len(targets):
        return np.zeros(len(boxes))
    held = (inside(boxes, targets) * presence).max(axis=1)
    score = np.zeros(len(boxes))
    for index, middle in enumerate(centers(boxes)):
        offset = centers(targets)[presence > 0.3] - middle
        offset = offset[np.hypot(offset[:, 0], offset[:, 1]) > 1.0]
        if len(offset) >= 3:
            angles = np.sort(np.arctan2(offset[:, 1], offset[:, 0]))
            widest = np.diff(angles, append=angles[0] + 2 * np.pi).max()
            score[index] = float(sigmoid(np.array((1.05 * np.pi - widest) / 0.25)))
    return np.asarray(np.maximum(held, score), np.float64)


def to_border(boxes: Floats, image_size: tuple[int, int]) -> Floats:
    """float64[N, 4]: pixels from each side (left, top, right, bottom) of the boxes to that border of the image."""
    height, width = image_size
    return np.stack([boxes[:, 0], boxes[:, 1], width - boxes[:, 2], height - boxes[:, 3]], axis=1)
