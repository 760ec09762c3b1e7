"""Who catches the eye: slivers that the image's border has left of an object hardly do."""

from __future__ import annotations

import re

import numpy as np

from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.query import Extreme, Place, Query, Relation, Size, State
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["salience"]

_SLIVER, _SLIVER_SHARE = 0.2, 0.7
"""What remains of one that the border cuts, and the share of its kind's middle area at which half of that is lost."""
_PARTIAL = frozenset(
    [
        "cut", "cropped", "clipped", "truncated", "partial", "partially", "partly", "part", "portion", "piece", "half",
        "tip", "barely", "only", "just", "edge", "border", "margin", "outside", "visible", "incomplete", "off",
        "sliver", "corner", "beyond", "frame",
    ]
)  # fmt: skip
"""Words with which a sliver may be meant."""
_WORD = re.compile(r"[^\W\d_]+")


def salience(query: Query, scene: Candidates, peers: Bools) -> Floats:
    """float64[N] in [0, 1]: little for a sliver of one of the ``peers``, hardly ever meant unless "cut off" is said.

    Where one place, order or superlative is all that is said everyone counts: it is taken at its word.
    """
    said = any(isinstance(c, State) and c.name in ("cut", "edge", "corner") for c in query.constraints)
    if (
        said
        or _is_bare(query)
        or query.is_all
        or peers.sum() < 2
        or not _PARTIAL.isdisjoint(_WORD.findall(query.text.casefold()))
    ):
        return np.ones(len(peers))
    size = scene.sizes("area")
    share = size / float(np.median(size[peers]))
    sliver = (spatial.to_border(scene.boxes, scene.image_size).min(axis=1) <= 1.5) & peers
    low = _SLIVER + (1.0 - _SLIVER) * spatial.sigmoid((share - _SLIVER_SHARE) / 0.08)
    return np.asarray(np.where(sliver, low, 1.0), np.float64)


def _is_bare(query: Query) -> bool:
    """Whether one place, order or superlative is all that is said ("the smallest ship"): it is taken at its word."""
    if query.unread or query.hint or len(query.constraints) > 1:
        return False
    return all(
        isinstance(c, Extreme | Place)
        or (isinstance(c, Size) and c.superlative)
        or (isinstance(c, Relation) and all(target.category and _is_bare(target) for target in c.targets))
        for c in query.constraints
    )
