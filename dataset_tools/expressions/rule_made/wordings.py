"""What can be said of an object in a scene, in several wordings: the grammar of ``expressions.rule_made.proposals``.

Only what holds with a clear margin is put into words; whether it also singles out the object is not asked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from dataset_tools import colors
from dataset_tools.categories import CATEGORIES, plural_of
from dataset_tools.expressions import spatial_scores as spatial
from dataset_tools.expressions.appearance import View
from dataset_tools.expressions.candidates import Candidates, LabelledBox
from dataset_tools.expressions.groups import partitions
from dataset_tools.expressions.landmarks import share_around

__all__ = ["Scenery"]

Wording = tuple[str, str]
"""(kind, expression)."""

_CLEAR = 0.04
"""Share of the image's width or height by which positions must differ to be put into words."""
_LARGER = 1.3
"""Ratio of areas from which one object is called larger."""
_NAMED_COLOR = 0.5
"""How much a colour must belong to its name to be called by it."""
_SYNONYMS = {  # words that never say more than the category does: a vehicle need not be a car
    "airplane": ("plane", "aircraft"),
    "ship": ("vessel",),
    "storagetank": ("tank",),
    "baseballfield": ("baseball diamond",),
    "groundtrackfield": ("athletics field",),
    "harbor": ("harbour",),
    "windmill": ("wind turbine",),
    "golffield": ("golf course",),
    "trainstation": ("railway station",),
    "Expressway-Service-area": ("service area",),
    "Expressway-toll-station": ("toll station",),
}
_LONG = 2.0
"""Ratio of the sides from which an object lies in a direction."""
_ON = 0.6
"""Share of the ground around an object that is of a kind, from which it stands on it."""
_SURFACES = {"grass": "on the grass", "trees": "among the trees", "water": "in the water", "bare": "on bare ground"}
_ORDINALS = {2: "second", 3: "third", 4: "fourth", 5: "fifth"}
_SIDES = {  # (axis, sign) -> adjective, side, superlatives, edge, relations
    (0, -1): ("left", "on the left", ("leftmost", "westernmost"), "left edge", ("to the left of", "west of")),
    (0, 1): ("right", "on the right", ("rightmost", "easternmost"), "right edge", ("to the right of", "east of")),
    (1, -1): ("upper", "at the top", ("topmost", "uppermost"), "top edge", ("above", "north of")),
    (1, 1): ("lower", "at the bottom", ("bottommost", "lowest"), "bottom edge", ("below", "south of")),
}
_COUNTED_FROM = {(0, -1): "left", (0, 1): "right", (1, -1): "top", (1, 1): "bottom"}
_COMPASS = {(0, -1): "west", (0, 1): "east", (1, -1): "north", (1, 1): "south"}
_PLACES = (
    ("upper left", "top", "upper right"),
    ("left", "center", "right"),
    ("lower left", "bottom", "lower right"),
)


class Scenery:
    """The annotated objects of one image.

    Args:
        objects: of canonical categories.
        image_size: (height, width) in pixels.
        view: what else is seen in the image; without it nothing is said of grass, trees and water.
    """

    def __init__(self, objects: Sequence[LabelledBox], image_size: tuple[int, int], view: View | None = None) -> None:
        self.scene = Candidates.of(objects, image_size, view)
        self.centers = spatial.centers(self.scene.boxes)
        self.areas = self.scene.sizes("area")
        self.clear = (_CLEAR * image_size[1], _CLEAR * image_size[0])
        self.groups: dict[str, list[int]] = {}
        for index, item in enumerate(objects):
            self.groups.setdefault(item.category, []).append(index)

    def of_one(self, index: int) -> Iterator[Wording]:
        """Everything that can be said of one object."""
        category = self.scene.candidates[index].category
        members = self.groups[category]
        for noun in (CATEGORIES[category].display, *_SYNONYMS.get(category, ())):
            if len(members) == 1:
                yield "single", f"the {noun}"
            yield from self._region(index, noun)
            yield from self._size(index, noun, members)
            yield from self._order(index, noun, members)
            yield from self._half(index, noun, members)
            yield from self._relations(index, noun, members)
            yield from self._color(index, noun, members)
            yield from self._group(index, noun, members)
            yield from self._heading(index, noun)
            yield from self._surface(index, noun)

    def of_all(self, members: Sequence[int]) -> Iterator[str]:
        """Wordings for all objects of a category; none for a single one."""
        words = CATEGORIES[self.scene.candidates[members[0]].category]
        if len(members) > 1:
            yield f"all the {words.plural}"
            yield f"every {words.display}"
        if len(members) == 2:
            yield f"both {words.plural}"

    def _color(self, index: int, noun: str, members: Sequence[int]) -> Iterator[Wording]:
        name = self._color_name(index)
        if name is None:
            return
        yield "color", f"the {name} {noun}"
        yield "color", f"the {noun} that is {name}"
        alike = [i for i in members if self._color_name(i) == name]
        if 1 < len(alike) < len(members):
            yield from self._order(index, f"{name} {noun}", alike)
            yield from self._size(index, f"{name} {noun}", alike)
            yield from self._region(index, f"{name} {noun}")
            yield from self._relations(index, f"{name} {noun}", alike)

    def _color_name(self, index: int) -> str | None:
        color = self.scene.candidates[index].color
        if color is None or isinstance(color, str):
            return color
        belongs = colors.memberships(np.array(color))
        return colors.name_of(color) if belongs.max() >= _NAMED_COLOR else None

    def _region(self, index: int, noun: str) -> Iterator[Wording]:
        height, width = self.scene.image_size
        place = self.centers[index] / (width, height) * 3
        column, row = (int(np.clip(value, 0, 2)) for value in place)
        border = np.abs(place[:, None] - np.array([1.0, 2.0])).min()
        if border < 3 * _CLEAR:
            return
        where = _PLACES[row][column]
        yield "region", f"the {noun} in the {where} of the image"
        yield "region", f"the {noun} located in the {where} part of the image"
        if " " in where:
            yield "region", f"the {noun} in the {where} corner of the image"
            yield "region", f"in the {where} of the image there is a {noun}"
        elif where == "center":
            yield "region", f"the {noun} in the middle of the image"
        elif where in ("top", "bottom"):
            yield "region", f"the {noun} at the {where} of the image"

    def _size(self, index: int, noun: str, members: Sequence[int]) -> Iterator[Wording]:
        if len(members) < 2:
            return
        for sign, adjective, superlatives in ((1, "larger", ("largest", "biggest")), (-1, "smaller", ("smallest",))):
            ranked = sorted(members, key=lambda i: -sign * self.areas[i])
            place = ranked.index(index) + 1
            ratios = [(self.areas[a] / self.areas[b]) ** sign for a, b in pairwise(ranked)]
            if min(ratios[max(0, place - 2) : place]) < _LARGER:
                continue
            if place == 1:
                for superlative in superlatives:
                    yield "size", f"the {superlative} {noun}"
                    yield "size", f"the {superlative} of the {plural_of(noun)}"
                if len(members) == 2:
                    yield "size", f"the {adjective} of the two {plural_of(noun)}"
            elif place in (2, 3) and len(members) > place:
                yield "size", f"the {_ORDINALS[place]} {superlatives[0]} {noun}"
                yield "size", f"the {_ORDINALS[place]} {superlatives[0]} of the {plural_of(noun)}"

        lengths = self.scene.sizes("length")
        for sign, superlative in ((1, "longest"), (-1, "shortest")):
            others = [lengths[i] for i in members if i != index]
            next_one = max(others) if sign > 0 else min(others)
            if (lengths[index] / next_one) ** sign >= _LARGER:
                yield "size", f"the {superlative} {noun}"
                yield "size", f"the {superlative} of the {plural_of(noun)}"

    def _order(self, index: int, noun: str, members: Sequence[int]) -> Iterator[Wording]:
        """First, second, ... in a direction, among the members."""
        if len(members) < 2:
            return
        for (axis, sign), (adjective, side, superlatives, edge, _) in _SIDES.items():
            ranked = sorted(members, key=lambda i: -sign * self.centers[i, axis])
            place = ranked.index(index) + 1
            along = self.centers[ranked, axis] * sign
            if (along[:-1] - along[1:])[max(0, place - 2) : place].min() < self.clear[axis]:
                continue
            if place == 1:
                for superlative in superlatives:
                    yield "extreme", f"the {superlative} {noun}"
                yield "extreme", f"the {noun} closest to the {edge} of the image"
                yield "extreme", f"the {noun} furthest {_COMPASS[axis, sign]}"
                if len(members) == 2:
                    yield "extreme", f"the {adjective} {noun}"
                    yield "extreme", f"the {noun} {side}"
                    yield "extreme", f"the {adjective} one of the two {plural_of(noun)}"
            elif place in _ORDINALS and place <= (len(members) + 1) // 2:
                start = _COUNTED_FROM[axis, sign]
                yield "order", f"the {_ORDINALS[place]} {noun} from the {start}"
                yield "order", f"the {_ORDINALS[place]} of the {plural_of(noun)} from the {_COMPASS[axis, sign]}"

    def _half(self, index: int, noun: str, members: Sequence[int]) -> Iterator[Wording]:
        """First in a direction among those in one half of the image."""
        height, width = self.scene.image_size
        offset = self.centers - (width / 2, height / 2)
        for (axis, sign), (half, *_) in _SIDES.items():
            beyond = offset[:, axis] * sign
            here = [i for i in members if beyond[i] > 0]
            if index not in here or not 1 < len(here) < len(members):
                continue
            if min(abs(offset[i, axis]) for i in members) < self.clear[axis]:
                continue
            across = 1 - axis
            for (other, way), (_, _, superlatives, *_) in _SIDES.items():
                if other != across:
                    continue
                along = sorted((self.centers[i, across] * way for i in here), reverse=True)
                if self.centers[index, across] * way == along[0] and along[0] - along[1] >= self.clear[across]:
                    yield "region", f"the {superlatives[0]} {noun} in the {half} half of the image"

    def _group(self, index: int, noun: str, members: Sequence[int]) -> Iterator[Wording]:
        """By its place in a row or a column of several."""
        peers = np.isin(np.arange(len(self.scene.boxes)), members)
        for shape, across in (("row", 1), ("column", 0)):
            deals = partitions(self.scene.boxes, peers, "row" if shape == "row" else "column")
            for parts in deals[:1]:  # the upright ones
                spans = sorted((float(self.centers[list(part.members), across].mean()), part.members) for part in parts)
                apart = min((b[0] - a[0] for a, b in pairwise(spans)), default=0.0)
                number = next(n for n, (_, part) in enumerate(spans) if index in part)
                own = sorted(spans[number][1], key=lambda i: self.centers[i, 1 - across])
                if len(own) < 2 or apart < 2 * self.clear[across]:
                    continue
                start, adjective, end = ("top", "upper", "bottom") if across else ("left", "left", "right")
                which = [f"{_ORDINALS[number + 1]} {shape} from the {start}"] if number + 1 in _ORDINALS else []
                if number == 0:
                    which = [f"{adjective} {shape}" if len(spans) == 2 else f"{start} {shape}"]
                elif number == len(spans) - 1:
                    which.append(f"{end} {shape}")
                first, last = ("left", "right") if across else ("top", "bottom")
                place = own.index(index) + 1
                for name in which:
                    if place == 1:
                        yield "group", f"the {first}most {noun} in the {name}"
                        yield "group", f"in the {name}, the {first} {noun}"
                    elif place == len(own):
                        yield "group", f"the {last}most {noun} in the {name}"
                        yield "group", f"in the {name}, the {last} {noun}"
                    if 1 < place <= len(own) // 2 and place in _ORDINALS:
                        yield "group", f"the {_ORDINALS[place]} {noun} from the {first} in the {name}"

    def _heading(self, index: int, noun: str) -> Iterator[Wording]:
        """Which way its longer axis lies."""
        look = self.scene.candidates[index].look
        outline = None if look is None else look.outline
        if outline is None or outline.elongation < _LONG:
            return
        upright = abs(np.sin(outline.angle))
        if upright > 0.96:
            yield "shape", f"the {noun} lying north to south"
            yield "shape", f"the vertical {noun}"
        elif upright < 0.28:
            yield "shape", f"the {noun} lying east to west"
            yield "shape", f"the horizontal {noun}"
        elif 0.5 < upright < 0.87:
            yield "shape", f"the diagonal {noun}"

    def _surface(self, index: int, noun: str) -> Iterator[Wording]:
        """On what it stands."""
        if self.scene.view is None:
            return
        for surface, where in _SURFACES.items():
            if share_around(surface, self.scene.boxes[index], self.scene.view) >= _ON:
                yield "surface", f"the {noun} {where}"

    def _relations(self, index: int, noun: str, peers: Sequence[int]) -> Iterator[Wording]:
        """To the only object of another category, or to the largest one of several."""
        boxes = self.scene.boxes
        category = self.scene.candidates[index].category
        for other, members in self.groups.items():
            if other == category:
                continue
            ranked = sorted(members, key=lambda i: -self.areas[i])
            name = CATEGORIES[other].display
            if len(members) > 1:
                if self.areas[ranked[0]] < _LARGER * self.areas[ranked[1]]:
                    continue
                name = f"largest {name}"
            target = boxes[ranked[:1]]
            this = boxes[index : index + 1]
            if spatial.inside(this, target)[0, 0] > 0.8:
                yield "relation", f"the {noun} on the {name}"
                continue
            offset = self.centers[index] - self.centers[ranked[0]]
            for (axis, sign), (*_, phrases) in _SIDES.items():
                straight = abs(offset[axis]) > 1.5 * abs(offset[1 - axis])
                if straight and spatial.directed(this, target, _direction(axis, sign))[0, 0] > 0.8:
                    for phrase in phrases:
                        yield "relation", f"the {noun} {phrase} the {name}"
            distances = spatial.gaps(boxes[list(peers)], target)[:, 0]
            own = spatial.gaps(this, target)[0, 0]
            others = np.sort(distances)[1:]
            if len(others) == 0 or others[0] - own < max(self.clear):
                continue
            yield "near", f"the {noun} nearest to the {name}"
            yield "near", f"the {noun} closest to the {name}"
            if spatial.near(this, target, self.scene.image_size)[0, 0] > 0.6:
                yield "near", f"the {noun} next to the {name}"


def _direction(axis: int, sign: int) -> tuple[int | None, int | None]:
    return (sign, None) if axis == 0 else (None, sign)
