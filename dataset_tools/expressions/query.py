"""What a referring expression asks for: the result of :func:`dataset_tools.expressions.parser.parse`.

Directions are pairs (x, y) of -1, 0, 1 or None: -1 is left or top, 1 is right or bottom, 0 the middle, None is not
said. "upper left" is (-1, -1), "on the left" is (-1, None), "in the middle" is (0, 0). North is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Among",
    "Color",
    "Constraint",
    "Direction",
    "Extreme",
    "Query",
    "Region",
    "Relation",
    "RelationKind",
    "Shape",
    "Size",
    "opposite",
]

Direction = tuple[int | None, int | None]


def opposite(direction: Direction) -> Direction:
    """The direction that leads back."""
    x, y = direction
    return (None if x is None else -x, None if y is None else -y)


@dataclass(frozen=True)
class Region:
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
class Among:
    """The object is one of those that another query asks for: "the larger of [the two ships on the left]"."""

    pool: Query
    negated: bool = False


RelationKind = Literal[
    "direction", "near", "nearest", "far", "farthest", "between", "on", "in", "surrounded", "holds", "larger", "smaller"
]


@dataclass(frozen=True)
class Relation:
    """How the object stands to others.

    Attributes:
        kind: ``direction`` uses ``direction``: the object lies that way FROM the target; ``holds`` means that the
            target lies on or in the object ("the harbor with ships"); the other kinds are as their names say.
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


Constraint = Region | Extreme | Size | Color | Shape | Relation | Among


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
    """

    text: str
    category: str | None = None
    noun: str = ""
    unknown_words: tuple[str, ...] = ()
    is_all: bool = False
    count: int | None = None
    constraints: tuple[Constraint, ...] = ()
    is_empty: bool = False

    @property
    def target_categories(self) -> frozenset[str]:
        """Canonical names of everything the relations refer to, at any depth; ``category`` itself not included."""
        found: set[str] = set()
        for constraint in self.constraints:
            if isinstance(constraint, Among):
                found |= constraint.pool.target_categories
            elif isinstance(constraint, Relation):
                for target in constraint.targets:
                    found |= target.target_categories | ({target.category} if target.category else set())
        return frozenset(found)

    @property
    def says_one(self) -> bool:
        """Whether it says that the image holds exactly one of its category: "the ship", not "a ship"."""
        definite = self.text.casefold().split()[:1] == ["the"]
        return definite and not self.constraints and not self.is_all and self.count in (None, 1)

    @property
    def mentions_color(self) -> bool:
        """Whether it, or anything it refers to, is described by a colour."""
        for constraint in self.constraints:
            parts = constraint.targets if isinstance(constraint, Relation) else ()
            parts = (constraint.pool,) if isinstance(constraint, Among) else parts
            if isinstance(constraint, Color) or any(part.mentions_color for part in parts):
                return True
        return False

    @property
    def kind(self) -> str:
        """What tells the object apart, in the words of ``expressions.jsonl``.

        One of ``all``, ``near``, ``relation``, ``size``, ``extreme``, ``color``, ``region`` and ``single``: the first
        of them that applies. Whether the object is there (``absent``) is not in the words.
        """
        if self.is_all:
            return "all"
        said = {type(c) for c in self.constraints}
        if any(relation.kind in ("near", "nearest") for relation in self.relations):
            return "near"
        kinds: tuple[tuple[type, str], ...] = (
            (Relation, "relation"), (Size, "size"), (Extreme, "extreme"), (Color, "color"), (Region, "region")
        )  # fmt: skip
        for constraint, kind in kinds:
            if constraint in said:
                return kind
        return "single"

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The constraints that are relations."""
        return tuple(c for c in self.constraints if isinstance(c, Relation))
