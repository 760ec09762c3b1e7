"""How well candidates fit what is said of their size: "large", "small", and nouns that say it ("truck")."""

from __future__ import annotations

import numpy as np

from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.query import Size
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["hinted", "relative_size"]

_TWO_KINDS = 1.2
"""Log of the ratio of areas from which "truck" and "car" are told apart by size."""


def hinted(hint: str, scene: Candidates, peers: Bools) -> Floats:
    """ "truck", "car": rather one of the large, of the small ones."""
    if not hint or peers.sum() < 2:
        return np.ones(len(peers))
    logs = np.log(scene.sizes("area")) * (1 if hint == "large" else -1)
    low, high = np.percentile(logs[peers], (10, 90))
    if high - low > _TWO_KINDS:  # cars and trucks, plainly
        return np.asarray(0.1 + 0.9 * spatial.sigmoid((logs - (low + high) / 2) / 0.25), np.float64)
    return np.asarray(0.45 + 0.55 * spatial.sigmoid((logs - np.median(logs[peers])) / 0.35), np.float64)


def relative_size(constraint: Size, scene: Candidates, peers: Bools, *, single: bool) -> Floats:
    """ "large": against the middle of the candidates' sizes; for one object rather the largest than the second."""
    if peers.sum() < 2:
        return np.ones(len(peers))
    logs = np.log(scene.sizes(constraint.measure)) * constraint.sign
    middle = (logs[peers].min() + logs[peers].max()) / 2
    score = spatial.sigmoid((logs - middle) / 0.25 + 0.5)
    if single:
        score = score * (0.5 + 0.5 * spatial.ranked(logs, np.full(len(logs), 0.15), peers.astype(np.float64)))
    return np.asarray(score, np.float64)
