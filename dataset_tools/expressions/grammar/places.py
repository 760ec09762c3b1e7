"""Reads where something lies: directions, parts of the image, and groups of the same kind of object."""

from __future__ import annotations

from dataclasses import replace

from dataset_tools.expressions.descriptive_words import HARMLESS, SURFACES
from dataset_tools.expressions.direction_words import combine
from dataset_tools.expressions.grammar.cursor import OPENS_NOUN, Cursor, Position
from dataset_tools.expressions.grammar.noun_phrase import NounPhrase, ranked
from dataset_tools.expressions.lexicon import Lexeme
from dataset_tools.expressions.query import (
    Constraint,
    Direction,
    Extreme,
    Group,
    GroupShape,
    Place,
    Query,
    Relation,
    RelationKind,
    State,
    opposite,
)

__all__ = ["MAX_DEPTH", "Places", "as_members"]

MAX_DEPTH = 6
"""Targets within targets; deeper ones are passed over."""


class Places(Cursor):
    """Positions and groups; what is mutually recursive with them comes from the parser."""

    def noun_phrase(self, *, root: bool, depth: int = 0, one_of_two: bool = False) -> NounPhrase:
        """See :mod:`dataset_tools.expressions.parser`."""
        raise NotImplementedError

    def modifier(self, phrase: NounPhrase, depth: int) -> None:
        """See :mod:`dataset_tools.expressions.parser`."""
        raise NotImplementedError

    def relate(self, phrase: NounPhrase, kind: RelationKind, depth: int, direction: Direction = (None, None)) -> bool:
        """See :mod:`dataset_tools.expressions.grammar.links`."""
        raise NotImplementedError

    def target(self, depth: int, *, one_of_two: bool = False) -> Query:
        """A noun phrase of its own, below ``depth``."""
        if depth >= MAX_DEPTH:
            return Query("")
        return self.noun_phrase(root=False, depth=depth + 1, one_of_two=one_of_two).query()

    def take_position(self, phrase: NounPhrase, depth: int, *, extreme: bool = False, reverse: bool = False) -> bool:
        """A direction and what it refers to: the image, another noun ("left of the bridge"), or the candidates.

        Args:
            phrase: what lies there.
            depth: of the phrase.
            extreme: the words before ("closest to") make it one.
            reverse: so do they, and turn it around ("farthest from the left edge").
        """
        position = self.position(extreme=extreme or reverse)
        if position is None:
            return False
        if self.peek().kind in ("of", "from") and self._is_center(1):  # "right of centre"
            self.at += 1
            self.takes_center()
            phrase.add(Place(position.direction, of_image=True))
            return True
        if self.peek().kind == "of" and self.peek(1).kind == "and" and self.peek(2).kind == "relative":
            self.at += 2  # "to the left of and above the pier"
            direction = combine(position.direction, self.take().value)
            self.relate(phrase, "direction", depth, direction)
            return True
        if self.peek().kind == "than":  # "further down than the pier"
            self.at += 1
            self.relate(phrase, "direction", depth, position.direction)
            return True
        of_image = self.take_frame() or self.before(position.start).kind == "frame"
        of_image |= position.in_image and not (self.peek().kind == "of" and self.peek(1).kind != "frame")
        if not of_image and self.peek().kind in ("of", "from", "to", "in") and self.group_ahead(1):
            self.at += 1
            self.take_group(phrase, depth, partitive=True)
            phrase.add(
                Extreme(position.direction)
                if position.is_end or position.extreme
                else Place(position.direction, of_image=False)
            )
        elif position.in_image and not of_image:  # "in the upper corner of the car park"
            phrase.add(Extreme(position.direction) if position.extreme else Place(position.direction, of_image=False))
        elif not of_image and self.peek().kind in ("of", "from", "to") and self._refers(phrase, position):
            if self._out_of_several(phrase, position):  # the parser goes on with "of the two courts"
                phrase.add(Extreme(position.direction) if position.is_end else Place(position.direction, False))
                return True
            self.at += 1
            if position.direction == (0, 0):
                self._middle_of(phrase, depth)
            else:
                self.relate(phrase, "direction", depth, position.direction)
        elif position.extreme:
            phrase.add(Extreme(opposite(position.direction) if reverse else position.direction))
        else:
            phrase.add(Place(position.direction, of_image))
        return True

    def takes_center(self) -> bool:
        """Past "the middle of the picture"; False, and nothing taken, if it is not that."""
        if not self._is_center(0):
            return False
        self.at += 2 if self.peek().kind == "article" else 1
        self.take_frame()
        return True

    def _is_center(self, ahead: int) -> bool:
        ahead += self.peek(ahead).kind == "article"
        return self.peek(ahead).value == (0, 0) and (
            self.peek(ahead + 1).kind in ("end", "break", "and", "frame")
            or (self.peek(ahead + 1).kind == "of" and "frame" in (self.peek(ahead + 2).kind, self.peek(ahead + 3).kind))
        )

    def _out_of_several(self, phrase: NounPhrase, position: Position) -> bool:
        """Whether one of several is picked by where it lies: "the left of the top two courts"."""
        if phrase.category is not None or phrase.noun or not phrase.root or self.peek().kind != "of":
            return False
        before = self.before(position.start).kind
        if not phrase.has_noun and before == "article" and self.before(position.start - 1).kind in ("to", "on", "in"):
            return False
        ahead, counted = 1, position.direction == (0, 0)
        while self.peek(ahead).kind in (*OPENS_NOUN, "direction", "extreme", "most", "state"):
            counted |= self.peek(ahead).kind in ("number", "both")
            if self.peek(ahead).kind == "category":
                return counted and self.peek(ahead).value.plural is not False
            ahead += 1
        return False

    def _refers(self, phrase: NounPhrase, position: Position) -> bool:
        """Whether "left of ..." is a relation: not for "the leftmost of the ships", "the upper of the two"."""
        following = [self.peek(n).kind for n in range(1, 5)]
        if position.extreme or following[0] in ("end", "break", "direction"):
            return False
        counted = "number" in following[:2] or "both" in following[:2]
        if counted and self.before(position.start).kind not in ("to", "on", "copula") and self.peek().kind == "of":
            ahead = 2 if self.peek(1).kind == "article" else 1
            if self.peek(ahead).kind == "number" and self.peek(ahead + 1).kind in ("end", "break"):
                return False  # "the tank left of the two"
        counted |= self._ones_ahead()
        bare = self.before(position.start).kind == "article" and self.before(position.start - 1).kind != "to"
        return (phrase.has_noun and not self._ones_ahead()) or not (bare and counted)

    def _ones_ahead(self) -> bool:
        """Whether "of the white ones" comes, which are of the same kind."""
        ahead = 1
        while self.peek(ahead).kind in ("article", "color", "size", "shape", "state", "direction", "number"):
            ahead += 1
        return self.peek().kind == "of" and self.peek(ahead).kind == "one" and self.peek(ahead).text.endswith("s")

    def _middle_of(self, phrase: NounPhrase, depth: int) -> None:
        """ "in the middle of": of its own kind a place in their midst, of several others between them, else inside."""
        target = self.target(depth)
        side = target.constraints[0] if len(target.constraints) == 1 and not target.noun else None
        if isinstance(side, Place) and not target.count:  # "in the middle of the left side"
            phrase.add(replace(side, direction=combine(side.direction, (0, 0))))
        elif (target.category == phrase.category and not target.unknown_words) or (not target.noun and target.count):
            if target.count and target.count > 1:
                phrase.constraints.append(Group("any", target.count, (), target.constraints))
            phrase.add(Place((0, 0), of_image=False))
        elif target.noun:
            phrase.add(Relation("between" if target.is_all else "in", (target,)))
        elif target.constraints or target.is_all:  # "in the middle of the smaller ones"
            phrase.add(Relation("surrounded", (replace(target, category=phrase.category),)))

    def place(self, phrase: NounPhrase, depth: int, *, extreme: bool = False) -> bool:
        """ "[in] the upper left corner", "[in] the image": a place that is not a noun phrase of its own."""
        start = self.at
        self.skip("article", "indefinite", "filler")
        if self.peek().kind == "frame":
            self.at += 1
            return True
        if phrase.has_noun and not extreme and self._ground_ahead():
            self.at = start
            return False
        if (self.is_place() or not phrase.has_noun) and self.take_position(phrase, depth, extreme=extreme):
            return True
        if self.peek().kind in ("part", "image_part"):
            self.end_of_image(phrase, self.take())
            return True
        self.at = start
        return False

    def _ground_ahead(self) -> bool:
        """Whether "the upper road", "left lawn" comes: what can be seen in the image has a place, not the object."""
        ahead = 0
        while self.peek(ahead).kind in ("direction", "extreme", "far", "most"):
            ahead += 1
        word = self.peek(ahead)
        known = word.kind == "unknown" and SURFACES.get(word.text, "land") != "land"  # "the left bank" is a side
        return ahead > 0 and known and self.peek(ahead + 1).kind != "unknown"

    def end_of_image(self, phrase: NounPhrase, lexeme: Lexeme) -> None:
        """ "in the corner", "at the edge": whichever it is."""
        if not (phrase.root or phrase.has_noun):
            return
        if phrase.root and lexeme.text in ("end", "ends") and self.peek().kind != "of":
            phrase.add(State("end"))
        elif lexeme.text in ("corner", "edge", "border") and self.peek().kind != "of":
            phrase.add(State("corner" if lexeme.text == "corner" else "edge"))

    def take_group(self, phrase: NounPhrase, depth: int, *, partitive: bool = False) -> None:
        """ "the upper row (of four ships)": which group the phrase's object belongs to.

        ``partitive``: it was said in which group the object is; else the group itself may be what is asked for.
        """
        scratch = NounPhrase(root=False)
        while self.peek().kind != "group" and not self.names_group():
            phrase.in_known_group |= self.peek().text == "the" and phrase.has_noun
            if self.peek().text in ("up", "down") and self.peek(1).kind == "article":  # "going up the row"
                self.at += 1
                continue
            if self.peek().kind == "unknown" and self.peek().text not in HARMLESS:
                phrase.unread.append(self.peek().text)  # "the back row"
            before = self.at
            self.modifier(scratch, depth)
            self.at = max(self.at, before + 1)
        shape: GroupShape = "any"  # of a noun of no list: "the strip of five courts"
        count: int | None = None
        if (named := self.take()).value is not None:
            shape, count = named.value
        if scratch.rank is not None and not scratch.constraints and self.peek().kind == "from":
            self.at += 1  # "the second row from the bottom"
            self.place(scratch, depth, extreme=True)
        several = scratch.count is not None and scratch.count > 1
        if scratch.rank is not None and shape == "row" and not scratch.constraints:
            scratch.constraints.append(Extreme((None, -1)))  # "the second row" is read from above
        scratch.constraints = [c for c in scratch.constraints if c != State("whole")]  # "the whole bottom row"
        place = tuple(ranked(scratch.constraints, scratch.rank))
        phrase.unread += [*scratch.unread, *scratch.pending]
        members: tuple[Constraint, ...] = ()
        if self.peek().kind == "of" and depth < MAX_DEPTH and self.peek(1).kind != "frame":
            start = self.at
            self.at += 1
            pool = self.noun_phrase(root=False, depth=depth + 1)
            pool.close_pending()
            own = pool.category is not None and pool.category == phrase.category
            adopted = phrase.category is None and not phrase.noun and not own
            if adopted and not (phrase.has_noun and pool.category is None):  # not "two ones in the row of the lot"
                phrase.category, phrase.noun, phrase.hint = pool.category, pool.noun, pool.hint
                phrase.plural = not partitive and not phrase.selects
                phrase.partitive |= not phrase.plural
                phrase.has_noun, own = True, True
            if not own and pool.noun:  # "at the end of the row of houses"
                self.at = start + 1
                self.relate(phrase, "near", depth)
                if place:
                    phrase.unread.append("row")  # which row of houses cannot be told
                return
            count = pool.count if pool.count and pool.count > 1 else count
            last = pool.constraints[-1] if pool.constraints else None
            if scratch.rank is not None and not scratch.constraints and pool.rank is None and isinstance(last, Extreme):
                place = tuple(ranked([last], scratch.rank))  # "the second group of courts counting from the lower left"
                pool.constraints = pool.constraints[:-1]
            members = tuple(ranked(pool.constraints, pool.rank))
            phrase.unread += pool.unread
        elif not phrase.has_noun and not phrase.root:
            phrase.has_noun = phrase.plural = True
        group = Group(shape, None if several else count, place, members)
        if phrase.plural and phrase.count is None and phrase.root and not phrase.selects:
            phrase.count = group.count
        phrase.add(group)


def as_members(query: Query) -> Group:
    """A counted query ("the two on the left") as the group that it describes."""
    return Group("any", query.count, (), query.constraints)
