"""Referring expressions for a scene, with their true targets: each names exactly what it says, with a clear margin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataset_tools.categories import CATEGORIES
from dataset_tools.geometry import Box
from dataset_tools.synthetic.canvas import SceneObject
from dataset_tools.synthetic.scenes import Scene

COLUMNS, ROWS = ("left", "center", "right"), ("upper", "center", "lower")
EXTREMES = {
    "leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1),
}  # fmt: skip
SIDES = {"on the left": (0, 1), "on the right": (0, -1), "at the top": (1, 1), "at the bottom": (1, -1)}
RELATIONS = {"to the left of": (0, -1), "to the right of": (0, 1), "above": (1, -1), "below": (1, 1)}


@dataclass(frozen=True)
class SceneExpression:
    """An expression about a scene.

    Attributes:
        expression: the words.
        category: canonical category of the targets.
        kind: single, color, region, extreme, size, near, relation, all or absent.
        targets: indices into the scene's objects; empty for ``absent``.
    """

    expression: str
    category: str
    kind: str
    targets: tuple[int, ...]


def expressions(scene: Scene, seed: int) -> list[SceneExpression]:
    """All expressions that hold in ``scene``, at most two of a kind and category, in a random order set by ``seed``.

    Expressions are left out where a person could doubt the target: extremes closer than 4 % of the image, sizes
    closer than 25 %, positions near the border of a region.
    """
    rng = np.random.default_rng((seed, scene.seed))
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(scene.objects):
        groups.setdefault(item.category, []).append(index)
    boxes = [item.box for item in scene.objects]
    height, width = scene.image.shape[:2]
    found: list[SceneExpression] = []
    for category, members in groups.items():
        candidates = [
            *_counting(category, members),
            *_colors(category, members, scene.objects),
            *_positions(category, members, boxes, width, height),
            *_sizes(category, members, scene.objects),
            *_neighbours(category, members, groups, boxes, width, height),
        ]
        order = [candidates[i] for i in rng.permutation(len(candidates))]
        for kind in dict.fromkeys(item.kind for item in order):
            found += [item for item in order if item.kind == kind][:2]
    missing = sorted(set(SCENE_CATEGORIES) - set(groups))
    if missing:
        category = missing[int(rng.integers(len(missing)))]
        found.append(SceneExpression(f"the {CATEGORIES[category].display}", category, "absent", ()))
    return [found[i] for i in rng.permutation(len(found))]


SCENE_CATEGORIES = (
    "airplane", "baseballfield", "basketballcourt", "bridge", "building", "groundtrackfield", "harbor", "ship",
    "storagetank", "tenniscourt", "vehicle",
)  # fmt: skip
"""The categories that scenes can hold."""


def _counting(category: str, members: list[int]) -> Iterator[SceneExpression]:
    words = CATEGORIES[category]
    if len(members) == 1:
        yield SceneExpression(f"the {words.display}", category, "single", (members[0],))
    else:
        yield SceneExpression(f"all the {words.plural}", category, "all", tuple(members))


def _colors(category: str, members: list[int], objects: tuple[SceneObject, ...]) -> Iterator[SceneExpression]:
    name = CATEGORIES[category].display
    colors = [objects[index].color for index in members]
    for index, color in zip(members, colors, strict=True):
        if color is not None and len(members) > 1 and colors.count(color) == 1:
            yield SceneExpression(f"the {color} {name}", category, "color", (index,))


def _positions(
    category: str, members: list[int], boxes: list[Box], width: int, height: int
) -> Iterator[SceneExpression]:
    name = CATEGORIES[category].display
    centers = {index: (boxes[index].center.x / width, boxes[index].center.y / height) for index in members}
    for column, across in enumerate(COLUMNS):
        for row, down in enumerate(ROWS):
            inside, near = [], []
            for index, (x, y) in centers.items():
                off = max(abs(x - (2 * column + 1) / 6), abs(y - (2 * row + 1) / 6))
                inside += [index] if off < 1 / 6 - 0.02 else []
                near += [index] if off < 1 / 6 + 0.02 else []
            if len(inside) == 1 and near == inside:
                place = " ".join(word for word in (down, across) if word != "center") or "center"
                place = {"upper": "top", "lower": "bottom"}.get(place, place)
                yield SceneExpression(f"the {name} in the {place} of the image", category, "region", (inside[0],))
    if len(members) < 2:
        return
    words_of = SIDES if len(members) == 2 else EXTREMES
    for words, (axis, sign) in words_of.items():
        ranked = sorted(members, key=lambda index: sign * centers[index][axis])
        if abs(centers[ranked[0]][axis] - centers[ranked[1]][axis]) > 0.04:
            text = f"the {name} {words}" if words_of is SIDES else f"the {words} {name}"
            yield SceneExpression(text, category, "extreme", (ranked[0],))


def _sizes(category: str, members: list[int], objects: tuple[SceneObject, ...]) -> Iterator[SceneExpression]:
    if len(members) < 2:
        return
    name = CATEGORIES[category].display
    ranked = sorted(members, key=lambda index: objects[index].mask.sum())
    areas = [float(objects[index].mask.sum()) for index in ranked]
    small, large = ("smaller", "larger") if len(members) == 2 else ("smallest", "largest")
    if areas[0] * 1.25 < areas[1]:
        yield SceneExpression(f"the {small} {name}", category, "size", (ranked[0],))
    if areas[-2] * 1.25 < areas[-1]:
        yield SceneExpression(f"the {large} {name}", category, "size", (ranked[-1],))


def _neighbours(
    category: str, members: list[int], groups: dict[str, list[int]], boxes: list[Box], width: int, height: int
) -> Iterator[SceneExpression]:
    name = CATEGORIES[category].display
    for other, landmarks in groups.items():
        if other == category or len(landmarks) != 1:
            continue
        there = boxes[landmarks[0]]
        words = CATEGORIES[other].display
        for relation, (axis, sign) in RELATIONS.items():
            side = width if axis == 0 else height
            offsets = {index: sign * (boxes[index].center[axis] - there.center[axis]) / side for index in members}
            holding = [index for index, offset in offsets.items() if offset > 0.06]
            doubtful = [index for index, offset in offsets.items() if -0.02 < offset <= 0.06]
            if len(holding) == 1 and not doubtful and len(members) > 1:
                yield SceneExpression(f"the {name} {relation} the {words}", category, "relation", (holding[0],))
        if len(members) > 1:
            gaps = sorted((_distance(boxes[index], there), index) for index in members)
            if gaps[0][0] + 0.05 * (width + height) / 2 < gaps[1][0]:
                yield SceneExpression(f"the {name} nearest to the {words}", category, "near", (gaps[0][1],))


def _distance(a: Box, b: Box) -> float:
    return float(np.hypot(a.center.x - b.center.x, a.center.y - b.center.y))
