"""How objects stand to what is no candidate but can be seen: grass, water, pavement, a red roof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools.categories import KINDS
from dataset_tools.colors import NAMES
from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.appearance import SURFACES as ALL_SURFACES
from dataset_tools.expressions.appearance import View
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.descriptive_words import SURFACES
from dataset_tools.expressions.query import Color, Direction, Extreme, Place, Query, RelationKind, Size
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["landmark_scores", "mentions_surroundings", "share_around", "surface_of", "toward"]

_PAVEMENTS = ("runway", "taxiway", "apron", "runways", "taxiways")
"""All paved alike: which of them it is cannot be seen by colour and texture."""
_GROUNDS = ("paved", "bare", "open", "grass")
"""Surfaces on which objects stand, so that the bottom of one is a part of it."""
_ROOFLESS = frozenset({"airplane", "helicopter", "ship", "storagetank", "swimmingpool", "vehicle"})
"""Kinds of objects that have no roof of their own, as piers have."""
_OBJECT = ALL_SURFACES.index("object")
_SHORTEST_RING = 4.0
_PATCH, _FAINT = 0.35, 0.2
"""A cell from which distances count is of the surface that much; where none is so plain, at least so much."""
_FEWEST = 6
"""Cells of the smallest patch."""
_ELSEWHERE = 0.05
"""What counts of a surface outside the part of the image where it was said to lie."""
Landmark = tuple[str | None, str | None, Direction | None, str]
"""(surface, colour, place, by which measure the largest or "") as which something is looked for."""
_REACH = 0.22
"""Share of the image's diagonal up to which something lies "left of" a landmark."""


def surface_of(target: Query) -> tuple[str | None, str | None] | None:
    """(surface, colour) by which a target can be told in the image; None if it cannot."""
    words = target.noun.split()
    if words and words[-1] in _PAVEMENTS:
        return None
    surface = "roof" if target.category == "building" else _surface_named(words)
    known = NAMES if surface is None else (*NAMES, "dark", "light")
    color = next((c.name for c in target.constraints if isinstance(c, Color) and c.name in known), None)
    if target.category == "harbor" and color is None:
        return "land", None  # where none is among the candidates the quay is at least where the water ends
    if target.category not in (None, "building") or (surface is None and color is None):
        return None
    if target.category is None and surface is None and not words:
        return None
    return surface, color


def _surface_named(words: Sequence[str]) -> str | None:
    """By the last word or two words that name one: a "front yard" is grass, a "yard" may be paved."""
    for last in range(len(words), 0, -1):
        for name in (" ".join(words[max(0, last - 2) : last]), words[last - 1], words[last - 1].removesuffix("s")):
            if name in SURFACES:
                return SURFACES[name]
    return None


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
    named = _named(what, target)
    layer = _layer(named, scene, scene.view)
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


def toward(target: Query, direction: Direction, scene: Candidates) -> Floats | None:
    """float64[N] in [0, 1]: how much each box lies in ``direction`` from a landmark; None if the image cannot tell."""
    what = surface_of(target)
    if scene.view is None or what is None:
        return None
    named = _named(what, target)
    return _measured("beyond", named, _layer(named, scene, scene.view), scene, direction)


def _named(what: tuple[str | None, str | None], target: Query) -> Landmark:
    """``what`` of :func:`surface_of`, with where and how large the target is said to be."""
    return *what, _place_of(target), _largest_by(target)


def _layer(named: Landmark, scene: Candidates, view: View) -> Floats:
    """float64[h, w]: how much each cell of the view is of what is looked for."""
    surface, color, place, measure = named
    layer = view.layer(surface, color)
    if surface in (None, "roof"):
        layer = _without_objects(scene, layer)
    if place is not None:
        layer = layer * _within(place, layer.shape)
    return _largest(layer, measure) if measure else layer


def _largest_by(target: Query) -> str:
    """The measure of "the long roof"; "" if nothing is said. The small ones may be anything."""
    found = [c.measure for c in target.constraints if isinstance(c, Size) and c.sign > 0 and not c.negated]
    return found[0] if found else ""


def _largest(layer: Floats, measure: str) -> Floats:
    """The layer with the largest of its patches kept, the others fainter."""
    number, labels, stats, _ = cv2.connectedComponentsWithStats(_patches(layer), connectivity=4)
    if number < 3:
        return layer
    corner = stats[1:, (cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP)]
    boxes = np.concatenate([corner, corner + stats[1:, (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT)]], axis=1)
    values = stats[1:, cv2.CC_STAT_AREA] if measure == "area" else spatial.sizes(boxes.astype(np.float64), measure)
    return np.asarray(layer * np.concatenate([[0.3], 0.5 + 0.5 * values / values.max()])[labels], np.float64)


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
    """Mean of the layer in a ring around the box, where no other object stands."""
    size = float(np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 1.0)))
    cell = 1.0 / min(view.scale)
    x0, y0, x1, y1 = _cells(box, view, margin=max(_SHORTEST_RING, cell, 0.25 * size))
    ix0, iy0, ix1, iy1 = _cells(box, view)
    ground = 1.0 - view.surfaces[_OBJECT, y0:y1, x0:x1]
    inner = np.s_[iy0 - y0 : iy1 - y0, ix0 - x0 : ix1 - x0]
    parts = (layer[y0:y1, x0:x1] * ground, ground)
    found, count = (float(part.sum() - part[inner].sum()) for part in parts)
    cells = ground.size - ground[inner].size
    return found / max(count, 0.25 * cells) if cells > 0 else float(layer[y0:y1, x0:x1].mean())


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
    patches = _patches(layer)
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


def _patches(layer: Floats) -> npt.NDArray[np.uint8]:
    """uint8[h, w]: 1 where the layer is plain over more than a few cells; a faint patch where there is no plain one."""
    bar = min(_PATCH, max(_FAINT, 0.7 * float(layer.max())))
    patches = (layer > bar).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(patches, connectivity=4)
    patches[stats[labels, cv2.CC_STAT_AREA] < _FEWEST] = 0
    return patches


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
    """The layer without the cells of candidates that a roof may be mistaken for: a white car is no white roof."""
    left = layer.copy()
    if scene.view is not None:
        for candidate, box in zip(scene.candidates, scene.boxes, strict=True):
            if KINDS.get(candidate.category, candidate.category) in _ROOFLESS:
                x0, y0, x1, y1 = _cells(box, scene.view)
                left[y0:y1, x0:x1] *= 0.3
    return left
