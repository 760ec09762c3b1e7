"""The parser's notes on one noun phrase, and how they become a :class:`Query`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace
from typing import Literal

from dataset_tools.categories import CATEGORIES, canonical, plural_of
from dataset_tools.expressions.direction_words import combine
from dataset_tools.expressions.meanings import AIRPLANE_PARTS, meanings_of
from dataset_tools.expressions.query import (
    Color,
    Constraint,
    Extreme,
    Group,
    Part,
    Place,
    Query,
    Relation,
    Shape,
    Size,
    State,
    opposite,
)

__all__ = ["NounPhrase", "ranked"]

_MAX_NOUN = 60
_CUT_PARTS = frozenset(["wing", "wings", "tail", "nose", "bow", "stern", "tip", "end", "part", "half", "corner"])
"""What may be left of an object that the border cuts."""
_ROOF_WORDS = ("roof", "roofed", "rooftop", "topped", "tiled")


@dataclass
class NounPhrase:
    """A noun phrase while its words come in.

    Attributes:
        root: the whole expression's, not a relation's target.
        category, noun, plural: of its head noun; ``has_noun`` is also set by "one" and by unknown nouns.
        all, count, rank: "all the", "two", "second"; a rank of -2 is "second to last".
        is_last: the rank is "last", which needs a direction.
        partitive: one out of several ("the largest of the ships").
        indefinite: "a boat", "ten boats": nothing was said that tells which.
        in_known_group: it was said to be in "the group", which has members besides.
        negate: words after "not" are being read.
        pending: unknown words that may turn out to be the noun.
        unread: words that mean something and were passed over.
        hint: see ``Query``.
        at_article: how many constraints had been said at the last article, None before the first.
        breaks: how many constraints had been said at each comma after the noun.
        context: so many of the constraints were said before the last comma; None before the first.
        constraints: conditions so far; a relation without targets waits for its "to" ("the nearest ship to ...").
    """

    root: bool
    category: str | None = None
    noun: str = ""
    has_noun: bool = False
    plural: bool | None = None
    all: bool = False
    count: int | None = None
    rank: int | None = None
    is_last: bool = False
    partitive: bool = False
    indefinite: bool = False
    in_known_group: bool = False
    negate: bool = False
    pending: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    context: int | None = None
    hint: str = ""
    at_article: int | None = None
    breaks: list[int] = field(default_factory=list)
    constraints: list[Constraint] = field(default_factory=list)

    def add(self, constraint: Constraint) -> None:
        """Takes a condition, negated after "not"."""
        self.constraints.append(replace(constraint, negated=True) if self.negate else constraint)

    def close_pending(self) -> None:
        """Unknown words right before a preposition or verb are the noun; before a noun they only modify it."""
        if self.pending and not self.has_noun:
            nouns = [w for w in self.pending if not w.endswith(("ed", "ly"))] or self.pending
            self.unread += [w for w in self.pending if w not in nouns and w.endswith("ed")]
            self.noun, self.has_noun = " ".join(nouns)[:_MAX_NOUN], True
            part = not self.root and nouns[-1] in AIRPLANE_PARTS  # "with a red tail"
            self.category = _misspelt(self.noun) or next((name for name, _ in meanings_of(self.noun) if not part), None)
        else:
            self.unread += self.pending
        self.pending = []

    def restart(self, *, read: bool = False) -> None:
        """What was described so far is only a landmark: the object asked for comes now; ``read`` if it is not lost."""
        self.unread += [] if read else self.noun.split()
        self.category = None if read else self.category
        self.noun, self.has_noun, self.plural, self.rank = "", False, None, None
        self.constraints, self.context, self.breaks = [], None, []

    @property
    def selects(self) -> bool:
        """Whether words before "of the ships" pick some of them ("the largest of", "one of", "the second of")."""
        return self.has_noun or bool(self.constraints) or self.rank is not None

    @property
    def _is_cut(self) -> bool:
        return any(isinstance(c, State) and c.name == "cut" for c in self.constraints)

    def _asides(self) -> tuple[Constraint, ...]:
        """What was said after a comma that followed an order."""
        for said in self.breaks:
            if self.rank is not None or any(isinstance(c, Extreme) for c in self.constraints[:said]):
                later = self.constraints[said:]
                return tuple(c for c in later if not isinstance(c, Extreme | Group) and not _unresolved(c))
        return ()

    def _settle_farthest(self) -> None:
        """ "the farthest tank to the left" is the leftmost."""
        waiting = next((c for c in self.constraints if _unresolved(c)), None)
        side = next((c for c in self.constraints if isinstance(c, Place) and not (c.of_image or c.negated)), None)
        if isinstance(waiting, Relation) and waiting.kind == "farthest" and side is not None:
            self.constraints = [
                Extreme(side.direction) if c is side else c for c in self.constraints if c is not waiting
            ]

    def _roofed(self, constraint: Constraint) -> Constraint:
        """From above a house is its roof: "a grey-roofed house" is grey."""
        if self.category == "building" and isinstance(constraint, Part) and constraint.noun in _ROOF_WORDS:
            return Color(constraint.color, constraint.negated)
        return constraint

    def query(self) -> Query:
        """The finished phrase."""
        self.close_pending()
        self._settle_farthest()
        described = [c for c in self.constraints if isinstance(c, Color | Size | Shape | State)]
        for said in {c for c in described if described.count(c) > 1}:  # "the white car, the upper of the white ones"
            self.constraints.remove(said)
        if self.is_last and self.rank == 1 and not any(_orders(c) for c in self.constraints):
            if any(isinstance(c, Group) for c in self.constraints):  # "the last of the row": from which end?
                self.constraints.append(State("end"))
            else:
                self.unread.append("last")
        for waiting in filter(_unresolved, self.constraints):  # "the farthest": from what?
            kind = waiting.kind if isinstance(waiting, Relation) else ""
            if not any(isinstance(c, Relation) and c.targets and c.kind == kind for c in self.constraints):
                self.unread.append(kind)
        several = self.count is not None and self.count > 1
        is_all = self.all or several or (bool(self.plural) and not self.partitive)
        if self.rank is not None and not several:
            is_all = False
        return Query(
            text=self.noun,
            category=self.category,
            noun=self.noun,
            unknown_words=(self.noun,) if self.noun and self.category is None else (),
            is_all=is_all,
            count=self.count,
            constraints=tuple(
                ranked(
                    _joined(_bordered([self._roofed(c) for c in self.constraints if not _unresolved(c)])),
                    self.rank,
                    self.is_last,
                )
            ),
            unread=tuple(w for w in self.unread if not (w in _CUT_PARTS and self._is_cut)),
            asides=self._asides(),
            hint=self.hint,
        )


def _orders(constraint: Constraint) -> bool:
    """Whether "last" may count in it."""
    if isinstance(constraint, Relation):
        return constraint.kind in ("nearest", "farthest")
    return isinstance(constraint, Extreme | Place | Size)


def _unresolved(constraint: Constraint) -> bool:
    """A "nearest" or "farthest" that never said to what."""
    return isinstance(constraint, Relation) and not constraint.targets


def _bordered(constraints: list[Constraint]) -> list[Constraint]:
    """ "cut off by the right edge": the side is the border's."""
    cut = next((c for c in constraints if isinstance(c, State) and c.name == "cut"), None)
    side = next((c for c in constraints if isinstance(c, Place) and not c.negated), None)
    if cut is None or side is None or constraints.index(side) < constraints.index(cut):
        return constraints
    return [replace(cut, direction=side.direction) if c is cut else c for c in constraints if c is not side]


def _joined(constraints: list[Constraint]) -> list[Constraint]:
    """Two sides said apart are one corner: "the lower ship on the left"."""
    if not any(isinstance(c, Group) for c in constraints):
        constraints = _halfway(constraints)
    sides: list[Place] | list[Extreme]
    sides = [c for c in constraints if isinstance(c, Place) and not c.of_image and not c.negated]
    if not sides:
        sides = [c for c in constraints if isinstance(c, Extreme) and not c.negated and c.rank == 1]
    if len(sides) != 2 or (0, 0) in (sides[0].direction, sides[1].direction):
        return constraints
    (x, y), (other_x, other_y) = (side.direction for side in sides)
    if (x is None) == (other_x is None) or (y is None) == (other_y is None):
        return constraints
    corner = replace(sides[0], direction=(other_x if x is None else x, other_y if y is None else y))
    return [corner if c is sides[0] else c for c in constraints if c is not sides[1]]


def _halfway(constraints: list[Constraint]) -> list[Constraint]:
    """ "on the left, in the middle" is at half height."""
    places = [c for c in constraints if isinstance(c, Place) and not c.negated]
    if len(places) != 2 or places[1].direction != (0, 0) or None not in places[0].direction:
        return constraints
    both = replace(places[0], direction=combine(places[0].direction, (0, 0)))
    return [both if c is places[0] else c for c in constraints if c is not places[1]]


def ranked(constraints: list[Constraint], rank: int | None, is_last: bool = False) -> list[Constraint]:
    """An ordinal ("second") goes to the order it counts in: an extreme, a size, or else a side ("on the left").

    A negative rank counts an order from its other end ("second to last from the left"), but not a side.
    """
    if rank is None:
        return constraints
    place = abs(rank)
    for kind in (Extreme, Size, Relation, Place):
        for index, constraint in enumerate(constraints):
            if not isinstance(constraint, kind):
                continue
            ranked: Constraint
            if isinstance(constraint, Size) and not constraint.superlative:
                continue  # "the first skinny one after the fat one"
            if isinstance(constraint, Size):
                sign: Literal[-1, 1] = constraint.sign if rank > 0 else (-1 if constraint.sign > 0 else 1)
                ranked = replace(constraint, sign=sign, rank=place, superlative=True)
            elif isinstance(constraint, Relation) and constraint.kind in ("nearest", "farthest"):
                ranked = replace(constraint, rank=place)
            elif isinstance(constraint, Extreme):
                direction = constraint.direction if rank > 0 else opposite(constraint.direction)
                ranked = Extreme(direction, place, constraint.negated)
            elif isinstance(constraint, Place) and not constraint.of_image:
                ranked = Extreme(constraint.direction, place, constraint.negated)
            else:
                continue
            return [*constraints[:index], ranked, *constraints[index + 1 :]]
    if is_last:
        return constraints
    return [*constraints, Extreme((-1 if rank > 0 else 1, None), place)]  # "the second plane": read from the left


def _misspelt(noun: str) -> str | None:
    """The category whose name is a slip away from a long unknown noun ("aiplane", "storge tank"), else None."""
    word = re.sub(r"\W", "", noun)
    if not 6 <= len(word) <= 30 or not word.isascii():
        return None
    names = [n for c in CATEGORIES.values() for one in (c.display, *c.aliases) for n in (one, plural_of(one))]
    close = [n for n in names if len(n) >= 6 and n[0] == word[0]]
    match = difflib.get_close_matches(word, [n.replace(" ", "") for n in close], 1, cutoff=0.9)
    return canonical(match[0]) if match else None
