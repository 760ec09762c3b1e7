"""What a referring expression asks for: the result of :func:`dataset_tools.expressions.parser.parse`.

Directions are pairs (x, y) of -1, 0, 1 or None: -1 is left or top, 1 is right or bottom, 0 the middle, None is not
said. "upper left" is (-1, -1), "on the left" is (-1, None), "in the middle" is (0, 0). North is up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Among",
    "Color",
    "Constraint",
    "Direction",
    "Extreme",
    "Group",
    "GroupShape",
    "Part",
    "Place",
    "Query",
    "Relation",
    "RelationKind",
    "Shape",
    "Size",
    "State",
    "opposite",
]

Direction = tuple[int | None, int | None]


def opposite(direction: Direction) -> Direction:
    """The direction that leads back."""
    x, y = direction
    return (None if x is None else -x, None if y is None else -y)


@dataclass(frozen=True)
class Place:
    """A part of the image ("in the upper left corner") or a side among the candidates ("on the left", "the upper one").

    Attributes:
        direction: which part.
        of_image: True if the words name the image or a part of it; False if they only compare candidates.
        negated: "not on the left".
    """

    direction: Direction
    of_image: bool
    negated: bool = False


@dataclass(frozen=True)
class Extreme:
    """First in a direction ("leftmost", "closest to the bottom edge"), or the rank-th ("second from the left")."""

    direction: Direction
    rank: int = 1
    negated: bool = False


@dataclass(frozen=True)
class Size:
    """Size against the other candidates.

    Attributes:
        sign: 1 large, -1 small.
        superlative: True for "largest" and for "the larger of the two", False for "large".
        measure: ``area`` or, for long and short, ``length`` (the longer side), or, for wide and narrow, ``width``
            (the shorter).
        rank: 2 for "second largest".
        negated: "not the largest".
    """

    sign: Literal[-1, 1]
    superlative: bool
    measure: Literal["area", "length", "width"] = "area"
    rank: int = 1
    negated: bool = False


@dataclass(frozen=True)
class Color:
    """A colour word by its canonical name (``dataset_tools.colors.NAMES``, or ``dark`` / ``light``)."""

    name: str
    negated: bool = False


@dataclass(frozen=True)
class Shape:
    """A shape word (``round``, ``square``, ...); of boxes only ``vertical`` and ``horizontal`` can be told."""

    name: str
    negated: bool = False


@dataclass(frozen=True)
class Part:
    """A colour that a part of the object has: "with a red tail", "blue and red court", "white-topped".

    Attributes:
        color: canonical colour word.
        noun: the part as written; empty if none is named.
        negated: "without a red tail".
    """

    color: str
    noun: str = ""
    negated: bool = False


@dataclass(frozen=True)
class State:
    """What is seen of the object or next to it: ``cut`` by the border, ``whole``, ``alone``, ``empty``, ``occupied``,
    in a ``corner`` of the image, at an ``edge`` of it, at an ``end`` of its group.

    Attributes:
        name: one of these.
        direction: for ``cut``: by which border of the image.
        negated: "not cut off".
    """

    name: Literal["cut", "whole", "alone", "empty", "occupied", "corner", "edge", "end"]
    direction: Direction = (None, None)
    negated: bool = False


GroupShape = Literal["any", "row", "column", "pair", "cluster"]


@dataclass(frozen=True)
class Group:
    """The object is one of a group of its own kind: "in the upper row", "of the pair by the bridge".

    Orders beside it ("second from the left") count within the group.

    Attributes:
        shape: a row may be tilted, a column stands upright, a pair is two; ``any`` if only a number is said.
        count: how many there are in it, None if not said.
        place: which group, if there are several: conditions on the group as a whole.
        members: conditions on each of its members, where they were said of them ("of the two on the left").
        negated: "not in the upper row".
    """

    shape: GroupShape
    count: int | None = None
    place: tuple[Constraint, ...] = ()
    members: tuple[Constraint, ...] = ()
    negated: bool = False


@dataclass(frozen=True)
class Among:
    """The object is one of those that another query asks for; negated: none of them ("not the one on the left")."""

    pool: Query
    negated: bool = False


RelationKind = Literal[
    "direction",
    "near",
    "end",
    "nearest",
    "far",
    "farthest",
    "between",
    "on",
    "in",
    "surrounded",
    "holds",
    "larger",
    "smaller",
    "similar",
]


@dataclass(frozen=True)
class Relation:
    """How the object stands to others.

    Attributes:
        kind: ``direction`` uses ``direction``: the object lies that way FROM the target; ``holds`` means that the
            target lies on or in the object ("the harbor with ships"); ``end``: near an end of the target; the other
            kinds are as their names say.
        targets: what it relates to; two or more only for ``between``. A target may be of an unknown category.
        direction: for kind ``direction``; for ``on``, the way that "over" and "under" may mean as well.
        rank: for ``nearest`` and ``farthest``: 2 for "second closest to the bridge".
        negated: "not near the bridge".
    """

    kind: RelationKind
    targets: tuple[Query, ...]
    direction: Direction = (None, None)
    rank: int = 1
    negated: bool = False


Constraint = Place | Extreme | Size | Color | Shape | Part | State | Relation | Group | Among


@dataclass(frozen=True)
class Query:
    """A parsed referring expression.

    Attributes:
        text: the expression as given; for a relation's target its head noun.
        category: canonical name of what is asked for, None if no known word names it.
        noun: its head noun as written, lower case ("plane"); empty if there is none ("the larger of the two").
        unknown_words: the head noun if it names no known category, else empty.
        is_all: every fitting object is asked for ("all the", "both", plurals), not one.
        count: the number said with it ("two ships", "both"), else None.
        constraints: every other condition, in the order of the words.
        is_empty: there is not one letter or digit in the expression.
        unread: words, in their order, that mean something and were not understood ("with faded lines").
        asides: those of the conditions that were said after a comma after an order: "the third from the left, next to
            the road" may be the third of all.
        hint: a word for a narrower kind than the category ("truck"), which says something about its size; else empty.
    """

    text: str
    category: str | None = None
    noun: str = ""
    unknown_words: tuple[str, ...] = ()
    is_all: bool = False
    count: int | None = None
    constraints: tuple[Constraint, ...] = ()
    is_empty: bool = False
    unread: tuple[str, ...] = ()
    hint: str = ""
    asides: tuple[Constraint, ...] = ()

    @property
    def target_categories(self) -> frozenset[str]:
        """Canonical names of everything the relations refer to, at any depth; ``category`` itself not included."""
        found: set[str] = set()
        for part in _inner(self.constraints):
            found |= part.target_categories
        for constraint in _flat(self.constraints):
            if isinstance(constraint, Relation):
                found |= {target.category for target in constraint.targets if target.category}
        return frozenset(found)

    @property
    def parts(self) -> tuple[Query, ...]:
        """The queries within its constraints: what its relations refer to, and pools."""
        return tuple(_inner(self.constraints))

    @property
    def mentions_looks(self) -> bool:
        """Whether it, or anything it refers to, is described by what is seen of it: colour, parts, shape."""
        return any(isinstance(c, Color | Part | Shape) for c in _flat(self.constraints)) or any(
            part.mentions_looks for part in self.parts
        )

    @property
    def says_one(self) -> bool:
        """Whether it says that the image holds exactly one of its category: "the ship", not "a ship"."""
        definite = self.text.casefold().split()[:1] == ["the"]
        return definite and not self.constraints and not self.is_all and self.count in (None, 1)

    @property
    def mentions_color(self) -> bool:
        """Whether it, or anything it refers to, is described by a colour."""
        return any(isinstance(c, Color | Part) for c in _flat(self.constraints)) or any(
            part.mentions_color for part in _inner(self.constraints)
        )

    @property
    def kind(self) -> str:
        """What tells the object apart, in the words of ``expressions.jsonl``.

        One of ``all``, ``near``, ``relation``, ``size``, ``extreme``, ``color``, ``region`` and ``single``: the first
        of them that applies. Whether the object is there (``absent``) is not in the words.
        """
        if self.is_all:
            return "all"
        said = {type(c) for c in self.constraints}
        if any(relation.kind in ("near", "nearest", "end") for relation in self.relations):
            return "near"
        kinds: tuple[tuple[type, str], ...] = (
            (Relation, "relation"), (Size, "size"), (Extreme, "extreme"), (Color, "color"), (Part, "color"),
            (Place, "region"), (Group, "region"),
        )  # fmt: skip
        for constraint, kind in kinds:
            if constraint in said:
                return kind
        return "single"

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The constraints that are relations."""
        return tuple(c for c in self.constraints if isinstance(c, Relation))


def _flat(constraints: tuple[Constraint, ...]) -> Iterator[Constraint]:
    """The constraints, and those on a group and its members."""
    for constraint in constraints:
        yield constraint
        if isinstance(constraint, Group):
            yield from _flat((*constraint.place, *constraint.members))


def _inner(constraints: tuple[Constraint, ...]) -> Iterator[Query]:
    """The queries within constraints."""
    for constraint in _flat(constraints):
        if isinstance(constraint, Among):
            yield constraint.pool
        elif isinstance(constraint, Relation):
            yield from constraint.targets
