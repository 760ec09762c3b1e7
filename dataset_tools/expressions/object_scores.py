"""How well candidates fit what is said of their own looks: colour, parts, shape, state."""

from __future__ import annotations

import numpy as np

from dataset_tools import colors
from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.appearance import Outline
from dataset_tools.expressions.candidates import Candidates, LabelledBox
from dataset_tools.expressions.query import Color, Part, Shape, State
from dataset_tools.expressions.spatial_scores import Bools, Floats

__all__ = ["color_scores", "part_scores", "shape_scores", "state_scores"]

_STANDS_OUT = 8.0
"""Units of CIELAB by which those of a colour differ from the middle one of all."""
_AT_BORDER = 1.5
"""Pixels from the image's border up to which an object is cut by it."""


_OF_NAMED, _OF_DEGREE, _FAINT = 0.5, 1.0, 0.03
"""Exponents of the two measures of a colour, and the degree of it that everything has. A conditional logit of which of
its kind was meant, on 373 colour words that people said, gave 0.68 and 1.92 (log loss cross-fitted by image 1.31, the
first measure alone 1.46, guessing 1.84); about half of that is taken, since other conditions have their say too."""
_LETTERS, _LETTER = "ltu", 0.4
"""Shapes that are told by which parts of the outline's rectangle are empty, and how much that counts."""


def color_scores(condition: Color, scene: Candidates, peers: Bools, *, single: bool) -> Floats:
    """float64[N]: by the object's main colour, and how much of it has the colour beside that of its peers.

    Where one object is asked for (``single``) the ratio of two scores is about how much likelier people are to name
    the one by that colour than the other.
    """
    named = _named(condition, scene, peers)
    if not single or condition.negated or not peers.any() or all(c.look is None for c in scene.candidates):
        return named
    degree = np.array([0.0 if c.look is None else c.look.degree(condition.name) for c in scene.candidates]) + _FAINT
    beside = np.minimum(degree / float(degree[peers].max()), 1.0)
    return np.asarray(named**_OF_NAMED * beside**_OF_DEGREE, np.float64)


def _named(condition: Color, scene: Candidates, peers: Bools) -> Floats:
    """float64[N] in [0.05, 1]: how well the colour word fits each."""
    main = _main_color(condition.name, scene)
    share = _shares(condition.name, scene)
    if share is None or not peers.any():
        return main
    most = max(float(share[peers].max()), 0.15)
    named = np.maximum(main, 0.05 + 0.85 * np.clip(share / most, 0.0, 1.0) ** 0.7)
    beside = _beside_peers(condition.name, scene, peers)
    if beside is None:
        return np.asarray(named, np.float64)
    trust = min(float(main[peers].max()), 0.9)  # no one is plainly purple: the most purple one is meant
    return np.asarray(named * trust + beside * (1.0 - trust), np.float64)


def _main_color(name: str, scene: Candidates) -> Floats:
    """float64[N] in [0.05, 1]: ``colors.similarity`` of each candidate's main colour."""
    if name in ("dark", "light"):
        fit = 0.05 + 0.95 / (1.0 + np.exp((scene.lightness - 0.5) / (0.1 if name == "dark" else -0.1)))
    else:
        fit = 0.05 + 0.95 * np.sqrt(scene.memberships[:, colors.NAMES.index(name)])
    for index in np.flatnonzero(np.isnan(fit)):
        fit[index] = colors.similarity(name, scene.candidates[index].color)
    return np.asarray(fit, np.float64)


def _beside_peers(name: str, scene: Candidates, peers: Bools) -> Floats | None:
    """float64[N] in [0, 1]: who is nearest to a colour word's hue or lightness, 1 for the first of the peers."""
    direction = colors.DIRECTIONS.get(name)
    if direction is None or any(c.look is None for c, p in zip(scene.candidates, peers, strict=True) if p):
        return None
    values = np.array([(0.0, 0.0, 0.0) if c.look is None else c.look.mean for c in scene.candidates])
    along = values @ np.array(direction)
    top, middle = float(along[peers].max()), float(np.median(along[peers]))
    first = np.exp(np.minimum(along - top, 0.0) / 4.0)
    if peers.sum() < 3 or top - middle < _STANDS_OUT:
        return np.asarray(first, np.float64)
    ahead = spatial.sigmoid((along - middle - 0.55 * (top - middle)) / (0.1 * (top - middle)))
    return np.asarray(ahead * (0.8 + 0.2 * first), np.float64)


def part_scores(condition: Part, scene: Candidates, peers: Bools) -> Floats | None:
    """float64[N]: who has most of the colour; None if nothing was measured."""
    share = _shares(condition.color, scene)
    if share is None or not peers.any():
        known = [c.color for c in scene.candidates]
        if all(color is None for color in known):
            return None
        return np.array([colors.similarity(condition.color, color) for color in known], np.float64)
    most = max(float(share[peers].max()), 0.04)
    return np.asarray(np.clip(share / most, 0.0, 1.0) ** 0.6, np.float64)


def _shares(name: str, scene: Candidates) -> Floats | None:
    if all(c.look is None for c in scene.candidates):
        return None
    return np.array([0.0 if c.look is None else c.look.share(name) for c in scene.candidates], np.float64)


def shape_scores(condition: Shape, scene: Candidates, peers: Bools) -> Floats | None:
    """float64[N]; None if the shape cannot be told from what is known."""
    width, height = np.maximum(scene.boxes[:, 2:] - scene.boxes[:, :2], 1e-6).T
    ratio = np.log(height / width)
    outlines = [None if c.look is None else c.look.outline for c in scene.candidates]
    known = all(o is not None for o, p in zip(outlines, peers, strict=True) if p)
    fill = np.array([0.8 if o is None else o.fill for o in outlines])
    solidity = np.array([0.9 if o is None else o.solidity for o in outlines])
    angle = np.array(
        [_upright_angle(c) if o is None else o.angle for o, c in zip(outlines, scene.candidates, strict=True)]
    )
    longish = np.array([np.exp(abs(r)) if o is None else o.elongation for o, r in zip(outlines, ratio, strict=True)])
    match condition.name:
        case "vertical":
            return _upright(angle, longish, ratio) if known else spatial.sigmoid(ratio / 0.25)
        case "horizontal":
            return 1.0 - _upright(angle, longish, ratio) if known else spatial.sigmoid(-ratio / 0.25)
        case "diagonal" if known:
            return np.asarray(np.abs(np.sin(2 * angle)), np.float64)
        case "square" | "round" if known or condition.name == "square":
            return np.asarray(np.exp(-np.log(longish) / 0.25), np.float64)
        case "l-shaped" | "t-shaped" | "u-shaped" | "irregular" | "curved" if known:
            low = solidity[peers].min() if peers.any() else 0.0
            hollow = spatial.sigmoid((low + 0.12 - solidity) / 0.05)
            letter = condition.name[0]
            if condition.name == "curved":
                return 1.2 - fill
            like = np.array([0.0 if o is None else _letter(o, letter) for o in outlines])
            if letter not in _LETTERS or not peers.any() or like[peers].max() < 0.5:
                return hollow
            return np.asarray((1.0 - _LETTER) * hollow + _LETTER * like, np.float64)
        case "straight" if known:
            return spatial.sigmoid((longish - 3.0) / 0.8)
    return None


def _letter(outline: Outline, letter: str) -> float:
    """In [0, 1]; people call many a dock T- or U-shaped that is an L with a short foot."""
    others = max(outline.likeness(other) for other in _LETTERS)
    return max(outline.likeness(letter), 0.5 * others)


def _upright_angle(candidate: LabelledBox) -> float:
    return float(np.pi / 2) if candidate.box.height > candidate.box.width else 0.0


def _upright(angle: Floats, longish: Floats, ratio: Floats) -> Floats:
    """By the longer axis where there is one, else by the box."""
    by_axis = np.abs(np.sin(angle)) ** 2
    trust = np.clip((longish - 1.1) / 0.4, 0.0, 1.0)
    return np.asarray(trust * by_axis + (1 - trust) * spatial.sigmoid(ratio / 0.25), np.float64)


def state_scores(condition: State, scene: Candidates, peers: Bools) -> Floats | None:
    """float64[N]; None if nothing that tells the state is among the candidates."""
    height, width = scene.image_size
    boxes = scene.boxes
    away = np.stack([boxes[:, 0], boxes[:, 1], width - boxes[:, 2], height - boxes[:, 3]], axis=1)
    touches = np.exp(-np.maximum(away - _AT_BORDER, 0.0) / _AT_BORDER)
    match condition.name:
        case "cut":
            x, y = condition.direction
            said = (x == -1, y == -1, x == 1, y == 1)
            wanted = [i for i in range(4) if said[i]] or [0, 1, 2, 3]
            found = touches[:, wanted].max(axis=1) * _missing(scene, peers)
            if x and y:  # "cut off at the bottom right": by either border, and there
                found = found * spatial.in_region(boxes, condition.direction, scene.image_size, single=False)
            return np.asarray(found, np.float64)
        case "whole":
            return np.asarray(1.0 - touches.max(axis=1), np.float64)
        case "alone":
            return _alone(scene, peers)
        case "end":
            off = -spatial.middleness(boxes, peers.astype(np.float64))
            off = off / max(float(off[peers].max(initial=0.0)), 1e-6)
            return np.asarray(np.exp2(-np.maximum(1.0 - off, 0.0) / 0.12), np.float64)
        case "corner" | "edge":
            across, down = away[:, [0, 2]].min(axis=1), away[:, [1, 3]].min(axis=1)
            off = np.maximum(np.hypot(across, down) if condition.name == "corner" else np.minimum(across, down), 0.0)
            if peers.any():
                off = off - off[peers].min()
            return np.asarray(np.exp2(-np.maximum(off, 0.0) / (0.08 * float(np.hypot(height, width)))), np.float64)
        case "empty" | "occupied":
            ships = scene.of_category("ship") + scene.of_category("vehicle") + scene.of_category("airplane")
            if not ships.any():
                return None
            held = (spatial.near(boxes, boxes, scene.image_size) * (scene.gaps <= 12.0) * ships).sum(axis=1)
            taken = 1.0 - np.exp2(-held)
            return np.asarray(taken if condition.name == "occupied" else 1.0 - taken, np.float64)


def _missing(scene: Candidates, peers: Bools) -> Floats:
    """float64[N] in [0.6, 1]: of two that the border cuts rather the one of which less is left is called so."""
    if peers.sum() < 2:
        return np.ones(len(peers))
    size = scene.sizes("area")
    share = size / float(np.median(size[peers]))
    return np.asarray(0.6 + 0.4 * spatial.sigmoid((0.6 - share) / 0.12), np.float64)


def _alone(scene: Candidates, peers: Bools) -> Floats:
    """The further from the nearest of its kind, beside that of its peers, the more."""
    here = np.flatnonzero(peers)
    score = np.ones(len(peers))
    if len(here) < 2:
        return score
    gaps = spatial.gaps(scene.boxes[here], scene.boxes[here])
    np.fill_diagonal(gaps, np.inf)
    nearest = gaps.min(axis=1)
    score[here] = np.clip(nearest / max(float(nearest.max()), 1.0), 0.05, 1.0)
    return score
