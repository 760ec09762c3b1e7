"""A place in the lexemes of an expression, and the readers that need no grammar: noun look-ahead and positions."""

from __future__ import annotations

from dataclasses import dataclass

from dataset_tools.expressions.direction_words import combine
from dataset_tools.expressions.lexicon import Lexeme
from dataset_tools.expressions.query import Direction, Query

__all__ = ["LEADS", "OPENS_NOUN", "Cursor", "Position"]

OPENS_NOUN = ("article", "indefinite", "all", "both", "number", "color", "shape", "size", "ordinal", "one", "category")
"""Kinds of lexeme that a noun phrase can begin with."""
LEADS = ("near", "nearest", "relative", "over", "on", "in", "of", "than", "far_from", "to", "from", "surrounded")
"""Kinds of lexeme that lead to what something is related to."""
_BEFORE_GROUP = (
    "article", "indefinite", "all", "both", "number", "ordinal", "size", "direction", "extreme", "most", "far", "color",
    "filler", "part", "and", "state", "shape",
)  # fmt: skip
_PLACES = ("direction", "extreme", "most", "far", "part", "image_part")
_END = Lexeme("end", "")


@dataclass(frozen=True)
class Position:
    """A direction as read: "far left", "upper left corner", "left side".

    Attributes:
        direction: as in ``expression_query``.
        extreme: "leftmost", "far left", "closest to the left".
        in_image: a part of the image is named ("corner", "half").
        is_end: an end or edge is named ("left end").
        start: index of its first lexeme.
    """

    direction: Direction
    extreme: bool
    in_image: bool
    is_end: bool
    start: int


class Cursor:
    """Reads lexemes from left to right; ``at`` is the index of the next one."""

    def __init__(self, words: list[Lexeme]) -> None:
        self.words = words
        self.at = 0
        self.antecedent: Query | None = None
        """What "it" stands for: "not the big one but the one above it"."""

    def peek(self, ahead: int = 0) -> Lexeme:
        """The lexeme ``ahead`` of the next one; of kind ``end`` after the last."""
        index = self.at + ahead
        return self.words[index] if 0 <= index < len(self.words) else _END

    def before(self, index: int) -> Lexeme:
        """The lexeme before ``index``; of kind ``end`` before the first."""
        return self.words[index - 1] if index > 0 else _END

    def take(self) -> Lexeme:
        """The next lexeme, and past it."""
        lexeme = self.peek()
        self.at += 1
        return lexeme

    def skip(self, *kinds: str) -> None:
        """Past all lexemes of these kinds."""
        while self.peek().kind in kinds:
            self.at += 1

    def starts_noun(self, *, or_unknown: bool = False, or_one: bool = False) -> bool:
        """Whether a noun phrase with a known noun comes next, with no preposition in between."""
        ahead = 0
        openers = (
            *OPENS_NOUN,
            "direction",
            "extreme",
            "unknown",
            "filler",
            "group",
            "most",
            "partword",
            "state",
            "sort",
        )
        while self.peek(ahead).kind in openers:
            kind = self.peek(ahead).kind
            if kind == "category" or (or_unknown and kind == "unknown") or (or_one and kind == "one"):
                return True
            ahead += 1
        return False

    def starts_noun_within(self, start: int, stop: int) -> bool:
        """Whether a known noun is among the lexemes ``start`` to ``stop`` (exclusive) ahead, before any preposition."""
        for ahead in range(start, stop):
            if self.peek(ahead).kind == "category":
                return True
            if self.peek(ahead).kind not in (*OPENS_NOUN, "unknown", "direction"):
                return False
        return False

    def one_ahead(self, ahead: int) -> bool:
        """Whether "one" comes ``ahead``, with nothing but its modifiers before it: "the left one"."""
        while self.peek(ahead).kind in ("direction", "extreme", "size", "color", "ordinal", "most"):
            ahead += 1
        return self.peek(ahead).kind == "one"

    def group_ahead(self, ahead: int = 0) -> bool:
        """Whether ``ahead`` a group is named, with nothing but its modifiers before it: "the upper row"."""
        start = ahead
        while ahead - start < 8 and (
            self.peek(ahead).kind in _BEFORE_GROUP or (self.peek(ahead).kind == "unknown" and ahead > start)
        ):
            if self.peek(ahead).kind == "and" and self.peek(ahead + 1).kind != "color":
                return False
            ahead += 1
        return self.peek(ahead).kind == "group" or (
            self.peek(ahead - 1).kind == "unknown" and self.names_group(ahead - 1)
        )

    def names_group(self, ahead: int = 0) -> bool:
        """Whether a word of no list is said of several: "the strip of five tennis courts", "a squad of three"."""
        if self.peek(ahead).kind != "unknown" or self.peek(ahead + 1).kind != "of":
            return False
        first, second = self.peek(ahead + 2), self.peek(ahead + 3)
        return first.kind == "number" and (
            second.kind in ("end", "break", "in", "on", "near", "direction", "extreme")
            or (second.kind == "category" and second.value.plural is not False)
        )

    def take_and_before_noun(self, *, or_unknown: bool = False, or_one: bool = False) -> bool:
        """Past an "and" that another noun follows; False, and nothing taken, if none does."""
        if self.peek().kind != "and":
            return False
        self.at += 1
        if self.starts_noun(or_unknown=or_unknown, or_one=or_one):
            return True
        self.at -= 1
        return False

    def take_frame(self) -> bool:
        """Past "(in) the image", from the preposition on; False, and nothing taken, if it is none."""
        start = self.at
        if self.peek().kind in ("of", "from", "to", "in", "on", "and") or self.peek().text == "at":
            self.at += 1
            self.skip("article", "filler", "all")
            if self.peek().kind == "frame":
                self.at += 1
                return True
        self.at = start
        return False

    def position(self, *, extreme: bool = False) -> Position | None:
        """Takes a direction with its adverbs and part words; None, and nothing taken, if none is next.

        Args:
            extreme: the words before ("closest to") already make it one.
        """
        start = self.at
        while self.peek().kind in ("most", "far"):
            extreme = True
            self.at += 1
        if extreme:
            while self.peek().kind in ("article", "to", "on", "in", "part") or self.peek().text in (
                "at", "towards", "out", "away", "over",
            ):  # fmt: skip
                self.at += 1
        if self.peek().kind not in ("direction", "extreme"):
            self.at = start
            return None
        direction: Direction = (None, None)
        while self._more_of(direction):
            lexeme = self.take()
            extreme |= lexeme.kind in ("extreme", "most")
            if lexeme.kind in ("direction", "extreme"):
                direction = combine(direction, lexeme.value)
        in_image = is_end = False
        while self.peek().kind in ("part", "image_part") or self.peek().text in ("most", "edge") or self._is_bank():
            in_image |= self.peek().kind == "image_part"
            is_end |= self.peek().text in ("end", "tip", "extremity")
            self.at += 1
        if self.peek().text == "third" and self.peek(1).kind in ("of", "in", "end", "break", "and"):  # "left third"
            in_image = True
            self.at += 1
        return Position(direction, extreme, in_image, is_end, start)

    def _is_bank(self) -> bool:
        """Whether "the left bank", "the west bank of the canal" comes, which is a side."""
        return self.peek().text in ("bank", "shore", "shoreline")

    def _more_of(self, direction: Direction) -> bool:
        """Whether the next word still belongs to the direction: "upper left", "left most", "top and left"."""
        following = self.peek(1)
        match self.peek().kind:
            case "direction" | "extreme":
                return True
            case "most":
                return following.kind in ("direction", "extreme")
            case "and":
                ahead = 1
                while self.peek(ahead).kind in ("to", "on", "article"):  # "up and to the left"
                    ahead += 1
                if self.peek(ahead).kind not in ("direction", "extreme"):
                    return False
                x, y = self.peek(ahead).value
                more = (direction[0] is None) != (x is None) and (direction[1] is None) != (y is None)
                self.at += ahead - 1 if more else 0
                return more
        return False

    def is_place(self) -> bool:
        """Whether directions and part words come next, and then no noun that they could describe."""
        ahead = 0
        while self.peek(ahead).kind in _PLACES:
            ahead += 1
        return ahead > 0 and self.peek(ahead).kind not in ("category", "one", "color", "size", "group", "number")

    def more_direction(self, direction: Direction) -> Direction:
        """The whole direction of "above and to the left of ...", "above left of ..."; past the "of"."""
        start = self.at
        if self.peek().kind == "direction" and self.peek(1).kind in ("of", "from"):
            more = self.take()
            self.skip("of", "from")
            return combine(direction, more.value)
        if self.peek().kind == "and":
            self.at += 1
            self.skip("to", "on", "article", "in")
            more = self.peek()
            if more.kind in ("direction", "relative"):
                self.at += 1
                self.skip("part", "of", "from")
                return combine(direction, more.value)
        self.at = start
        return direction

    def take_heading(self) -> Direction | None:
        """Past "(pointing) to the left", with where to; None, and nothing taken, if no direction follows."""
        start = self.at
        while self.peek().kind in ("to", "article", "filler", "copula", "heading") or "toward" in self.peek().text:
            self.at += 1
        direction: Direction = (None, None)
        while self.peek().kind == "direction":
            direction = combine(direction, self.take().value)
        if direction == (None, None):
            self.at = start
            return None
        self.skip("part", "image_part")
        return direction
