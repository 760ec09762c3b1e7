"""How objects stand to what is no candidate but can be seen: grass, water, pavement, a red roof."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from dataset_tools.colors import NAMES
from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.appearance import View
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.descriptive_words import SURFACES
from dataset_tools.expressions.query import Color, Direction, Extreme, Place, Query, RelationKind
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["landmark_scores", "mentions_surroundings", "share_around", "surface_of"]

_PAVEMENTS = ("runway", "taxiway", "apron", "runways", "taxiways")
"""All paved alike: which of them it is cannot be seen by colour and texture."""
_GROUNDS = ("paved", "bare", "open", "grass")
"""Surfaces on which objects stand, so that the bottom of one is a part of it."""
_SHORTEST_RING = 4.0
_PATCH, _FAINT = 0.35, 0.2
"""A cell from which distances count is of the surface that much; where none is so plain, at least so much."""
_ELSEWHERE = 0.05
"""What counts of a surface outside the part of the image where it was said to lie."""
Landmark = tuple[str | None, str | None, Direction | None]
"""(surface, colour, place) as which something is looked for."""
_REACH = 0.22
"""Share of the image's diagonal up to which something lies "left of" a landmark."""


def surface_of(target: Query) -> tuple[str | None, str | None] | None:
    """(surface, colour) by which a target can be told in the image; None if it cannot."""
    words = target.noun.split()
    if words and words[-1] in _PAVEMENTS:
        return None
    surface = next((SURFACES[word] for word in reversed(words) if word in SURFACES), None)
    color = next((c.name for c in target.constraints if isinstance(c, Color) and c.name in NAMES), None)
    if target.category == "harbor" and color is None:
        return "land", None  # where none is among the candidates the quay is at least where the water ends
    if target.category not in (None, "building") or (surface is None and color is None):
        return None
    if target.category is None and surface is None and not words:
        return None
    return surface, color


def share_around(surface: str, box: Floats, view: View) -> float:
    """How much of a ring around ``box`` float64[4] is of a surface (see ``appearance.SURFACES``), in [0, 1]."""
    return _around(view.layer(surface, None), box, view)


def mentions_surroundings(query: Query) -> bool:
    """Whether something that it refers to may have to be looked for in the image (see ``appearance.view_of``)."""
    return any(surface_of(part) is not None or mentions_surroundings(part) for part in query.parts)


def landmark_scores(
    target: Query, kind: RelationKind, direction: Direction, scene: Candidates, peers: Bools
) -> Floats | None:
    """float64[N] in [0, 1], relative to the best of the ``peers``; None if the image cannot tell."""
    what = surface_of(target)
    if scene.view is None or what is None or not peers.any():
        return None
    layer = _without_objects(scene, scene.view.layer(*what)) if what[0] is None else scene.view.layer(*what)
    place = _place_of(target)
    if place is not None:
        layer = layer * _within(place, layer.shape)
    named: Landmark = (*what, place)
    here = np.flatnonzero(peers)
    scores: Floats = np.zeros(len(peers))
    match kind:
        case "on" | "in" | "surrounded" if direction == (None, None):
            scores[here] = _measured("around", named, layer, scene)[here]
        case "near" | "nearest" | "far" | "farthest" | "on" | "in" | "surrounded" | "holds":
            distance = _distances(layer, named, scene)
            if distance is None:
                return None
            scores[here] = np.exp2(-distance[here] / (0.05 * float(np.hypot(*scene.image_size))))
            if kind in ("far", "farthest"):
                scores[here] = 1.05 - scores[here]
        case "direction":
            scores[here] = _measured("beyond", named, layer, scene, direction)[here]
            if what[0] in _GROUNDS:  # "at the bottom of the yard" is in it
                around = _measured("around", named, layer, scene)[here]
                within: Floats = np.zeros(len(peers))
                within[here] = around / max(float(around.max()), 1e-9)
                if (within > 0.6).any():
                    within *= spatial.side(scene.boxes, direction, within > 0.6)
                scores = np.maximum(scores / max(float(scores.max()), 0.08), 0.9 * within)
        case _:
            return None
    most = float(scores.max())
    return None if most < 0.08 else scores / most


def _place_of(target: Query) -> Direction | None:
    """Where the landmark lies: "the road on the left", "the upper lawn"; None if that is not said."""
    places = [c for c in target.constraints if isinstance(c, Place | Extreme) and not c.negated]
    return places[0].direction if len(places) == 1 and getattr(places[0], "rank", 1) == 1 else None


def _within(place: Direction, shape: tuple[int, ...]) -> Floats:
    """float64[h, w]: how much each cell lies in that part of the image."""
    height, width = shape
    y, x = np.mgrid[:height, :width].reshape(2, -1) + 0.5
    region = spatial.in_region(np.stack([x, y, x, y], axis=1), place, (height, width), single=False)
    return np.asarray(_ELSEWHERE + (1.0 - _ELSEWHERE) * region.reshape(height, width), np.float64)


def _cells(box: Floats, view: View, *, margin: float = 0.0) -> tuple[int, int, int, int]:
    """Cells (x0, y0, x1, y1) that a box widened by ``margin`` pixels covers, at least one."""
    _, height, width = view.surfaces.shape
    box = box.tolist()
    x0, y0 = (box[0] - margin) * view.scale[0], (box[1] - margin) * view.scale[1]
    x1, y1 = (box[2] + margin) * view.scale[0], (box[3] + margin) * view.scale[1]
    left, top = min(max(round(x0), 0), width - 1), min(max(round(y0), 0), height - 1)
    return left, top, min(max(round(x1), left + 1), width), min(max(round(y1), top + 1), height)


def _around(layer: Floats, box: Floats, view: View) -> float:
    """Mean of the layer in a ring around the box."""
    size = float(np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 1.0)))
    cell = 1.0 / min(view.scale)
    x0, y0, x1, y1 = _cells(box, view, margin=max(_SHORTEST_RING, cell, 0.25 * size))
    outer = layer[y0:y1, x0:x1]
    ix0, iy0, ix1, iy1 = _cells(box, view)
    inner = layer[iy0:iy1, ix0:ix1]
    count = outer.size - inner.size
    return float((outer.sum() - inner.sum()) / count) if count > 0 else float(outer.mean())


def _measured(
    measure: Literal["around", "beyond"],
    what: Landmark,
    layer: Floats,
    scene: Candidates,
    direction: Direction = (None, None),
) -> Floats:
    """float64[N] for all boxes, once for a scene however many groups are tried."""
    key = (measure, what, direction)
    if key not in scene.measured and scene.view is not None:
        if measure == "around":
            found = [_around(layer, box, scene.view) for box in scene.boxes]
        else:
            found = [_beyond(layer, box, direction, scene) for box in scene.boxes]
        scene.measured[key] = np.array(found, np.float64)
    return scene.measured[key]


def _distances(layer: Floats, what: Landmark, scene: Candidates) -> Floats | None:
    """Pixels from each box to the nearest patch of the layer; None if there is no patch."""
    if ("away", what) in scene.measured:
        return scene.measured["away", what]
    bar = min(_PATCH, max(_FAINT, 0.7 * float(layer.max())))  # a faint one where there is no plain one
    patches = (layer > bar).astype(np.uint8)
    number, labels, stats, _ = cv2.connectedComponentsWithStats(patches, connectivity=4)
    small = [i for i in range(1, number) if stats[i, cv2.CC_STAT_AREA] < 3]
    patches[np.isin(labels, small)] = 0
    if not patches.any() or scene.view is None:
        return None
    away = cv2.distanceTransform(1 - patches, cv2.DIST_L2, 3)
    cell = 1.0 / min(scene.view.scale)
    found = []
    for box in scene.boxes:
        x0, y0, x1, y1 = _cells(box, scene.view)
        found.append(float(away[y0:y1, x0:x1].min()) * cell)
    scene.measured["away", what] = np.array(found, np.float64)
    return scene.measured["away", what]


def _beyond(layer: Floats, box: Floats, direction: Direction, scene: Candidates) -> float:
    """How much of the layer lies next to the box on the side that is opposite to ``direction``."""
    view = scene.view
    if view is None:
        return 0.0
    reach = _REACH * float(np.hypot(*scene.image_size))
    x, y = direction[0] or 0, direction[1] or 0
    area = box.copy()
    if x:
        area[0], area[2] = (box[0] - reach, box[0]) if x > 0 else (box[2], box[2] + reach)
    if y:
        area[1], area[3] = (box[1] - reach, box[1]) if y > 0 else (box[3], box[3] + reach)
    x0, y0, x1, y1 = _cells(area, view)
    part = layer[y0:y1, x0:x1]
    depth = np.ones(part.shape)
    if x:
        fade = np.linspace(0.2, 1.0, part.shape[1])
        depth = depth * (fade if x > 0 else fade[::-1])
    if y:
        fade = np.linspace(0.2, 1.0, part.shape[0])[:, None]
        depth = depth * (fade if y > 0 else fade[::-1])
    return float((part * depth).sum() / depth.sum())


def _without_objects(scene: Candidates, layer: Floats) -> Floats:
    """The layer without the candidates' own cells: a white car is no white roof."""
    left = layer.copy()
    if scene.view is not None:
        for box in scene.boxes:
            x0, y0, x1, y1 = _cells(box, scene.view)
            left[y0:y1, x0:x1] *= 0.3
    return left
