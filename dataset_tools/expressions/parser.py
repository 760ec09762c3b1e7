"""Referring expressions in English -> :class:`Query`.

A small recursive-descent parser over the lexemes of :mod:`dataset_tools.expressions.lexicon`:

    expression    := noun_phrase                                   (the first noun is what is asked for)
    noun_phrase   := modifier* noun (modifier | relation noun_phrase)*
    modifier      := number | order | colour | shape | size | position | extreme
    relation      := "left of" | "near" | "between" | "on" | "with" | ...

Words between a relation and its noun, and after that noun, belong to that noun ("the ship left of the largest harbor on
the left"); a comma, "and", or a second verb goes back to the object asked for. Order is free: "on the left there is a
ship" and "ship, left" mean the same. Nothing is ever an error: words that fit nowhere are skipped.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from dataset_tools.expressions.cursor import ARRANGEMENTS, OPENS_NOUN, Cursor, Position
from dataset_tools.expressions.lexicon import Lexeme, lexemes
from dataset_tools.expressions.noun_phrase import NounPhrase
from dataset_tools.expressions.query import (
    Among,
    Color,
    Direction,
    Extreme,
    Query,
    Region,
    Relation,
    RelationKind,
    Shape,
    Size,
    opposite,
)

__all__ = ["Query", "parse"]

_MAX_DEPTH = 6
_RELATIONS: dict[str, RelationKind] = {
    "near": "near",
    "far_from": "far",
    "on": "on",
    "in": "in",
    "surrounded": "surrounded",
    "holds": "holds",
}
_SKIPPED = ("filler", "one", "unknown", "article", "frame", "part", "image_part", "inverse", "there")


def parse(expression: str, own: Collection[str] = ()) -> Query:
    """What ``expression`` asks for. Never raises; whatever it cannot read is left out (see :class:`Query`).

    ``own`` are names of categories beside the canonical ones ("solar panel"), as a project's labels give them.
    """
    if not any(character.isalnum() for character in expression):
        return Query(expression, is_empty=True)
    phrase = _Parser(lexemes(expression, own)).noun_phrase(root=True)
    return replace(phrase.query(), text=expression)


class _Parser(Cursor):
    """The grammar. ``depth`` counts targets within targets; deeper than ``_MAX_DEPTH`` they are passed over."""

    def __init__(self, words: list[Lexeme]) -> None:
        super().__init__(words)
        self.root_has_noun = False

    def noun_phrase(self, *, root: bool, depth: int = 0, one_of_two: bool = False) -> NounPhrase:
        """Reads one noun with all that belongs to it; an inner one stops at words that belong to the outer one.

        ``one_of_two``: an "and" ends it even before its noun ("between the red and the blue ship").
        """
        phrase = NounPhrase(root)
        while self.at < len(self.words):
            if not root and (phrase.has_noun or phrase.pending) and self._returns(phrase):
                break
            if one_of_two and phrase.constraints and self.peek().kind == "and":
                break
            before = self.at
            if not self._noun(phrase):
                break
            if self.at == before:
                self._modifier(phrase, depth)
            self.at = max(self.at, before + 1)
            if root:
                self.root_has_noun = phrase.has_noun
        return phrase

    def _returns(self, phrase: NounPhrase) -> bool:
        """Whether the next word leads back to the phrase that this one is a target of."""
        kind, following = self.peek().kind, self.peek(1).kind
        if kind in ("break", "and", "there", "inverse"):
            return True
        if kind == "copula":
            return not self.root_has_noun and following in OPENS_NOUN
        if self.peek().text in ("that", "which") and following == "copula":
            # "the car on the bridge that is the closest to ..." tells which car; "that is on the left" which bridge
            superlative = self.peek(3 if self.peek(2).kind == "article" else 2)
            return superlative.kind in ("extreme", "most", "nearest", "farthest", "ordinal") or (
                superlative.kind == "size" and superlative.value[2] == "superlative"
            )
        if not phrase.has_noun:
            return False
        if kind == "article" and not self.root_has_noun and self.starts_noun(or_one=True):
            return True
        return kind in ("article", "indefinite", "number", "category") and self.starts_noun()

    def _noun(self, phrase: NounPhrase) -> bool:
        """Takes the next word if it is a noun of this phrase; False if it is the noun of another one."""
        lexeme = self.peek()
        if lexeme.kind == "unknown":
            if not phrase.has_noun:
                phrase.pending.append(lexeme.text)
            self.at += 1
        elif lexeme.kind == "one":
            self.at += 1
            self._pronoun(phrase, lexeme)
        elif lexeme.kind == "category":
            if phrase.negate and phrase.category is not None:
                self.at += 1
            elif phrase.category is None and not phrase.noun:
                self.at += 1
                phrase.category, phrase.noun, phrase.has_noun = lexeme.value.category, lexeme.text, True
                phrase.plural, phrase.pending = lexeme.value.plural, []
            elif not phrase.root:
                return False
        return True

    def _pronoun(self, phrase: NounPhrase, lexeme: Lexeme) -> None:
        if phrase.pending and self.peek().kind != "of":
            phrase.close_pending()
        if lexeme.text == "one" and not phrase.has_noun and self.starts_noun():
            phrase.count = 1
        elif phrase.has_noun and phrase.root and lexeme.text == "one" and not phrase.negate:
            phrase.partitive, phrase.all, phrase.count = True, False, None  # "there are two ships, the left one"
        elif not phrase.has_noun:
            phrase.has_noun, phrase.plural = True, lexeme.text.endswith("s")

    def _modifier(self, phrase: NounPhrase, depth: int) -> None:
        """Takes the next word into the phrase, with what belongs to it."""
        lexeme = self.take()
        match lexeme.kind:
            case "article" | "indefinite":
                pass
            case "all":
                phrase.all |= not phrase.has_noun
            case "both":
                phrase.all, phrase.count = True, 2
            case "number":
                if not phrase.has_noun:
                    phrase.count = lexeme.value
                elif self.peek().kind == "from":  # "ship no. 3 from the left"
                    phrase.rank = lexeme.value
            case "ordinal":
                phrase.rank = lexeme.value
            case "color":
                phrase.add(Color(lexeme.value))
            case "shape":
                phrase.add(Shape(lexeme.value))
            case "size":
                self._size(phrase, lexeme, depth)
            case "non":  # "non-white"
                if self.peek().kind == "color":
                    phrase.constraints.append(Color(self.take().value, negated=True))
            case "not":
                phrase.close_pending()
                phrase.negate = True
            case "extreme" if lexeme.text.startswith("from ") and phrase.rank is None:
                pass  # "a bridge that crosses from left to right"
            case "direction" | "extreme" | "most" | "far":
                self.at -= 1
                if not self._take_position(phrase, depth) and lexeme.text in ("farthest", "furthest"):
                    phrase.constraints.append(Relation("farthest", ()))
            case "copula":
                phrase.close_pending()
                if lexeme.text in ("are", "were", "lie") and phrase.plural is None:
                    phrase.plural = True
            case "break" | "and":
                phrase.close_pending()
                phrase.negate &= lexeme.kind == "and" or self.peek().kind == "color"  # "not gray, white or green"
                phrase.negate |= lexeme.text == "but" and phrase.all  # "every plane but the largest"
            case "frame":
                phrase.pending = []
            case "group":
                phrase.pending = [] if phrase.root or self.peek().kind == "of" else [lexeme.text]
            case _:
                self._link(phrase, lexeme, depth)

    def _size(self, phrase: NounPhrase, lexeme: Lexeme, depth: int) -> None:
        sign, measure, degree = lexeme.value
        if degree == "comparative":
            ahead = next((n for n in range(3) if self.peek(n).kind == "than"), None)
            if ahead is not None:
                self.at += ahead + 1
                if self._relate(phrase, "larger" if sign > 0 else "smaller", depth):
                    return
        phrase.add(Size(sign, degree != "positive", measure))

    def _take_position(self, phrase: NounPhrase, depth: int, *, extreme: bool = False, reverse: bool = False) -> bool:
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
        of_image = self.take_frame() or position.in_image or self.before(position.start).kind == "frame"
        if not of_image and self.peek().kind in ("of", "from", "to") and self._refers(phrase, position):
            self.at += 1
            if self._take_arrangement():
                phrase.add(Region(position.direction, of_image=False))
            elif position.direction == (0, 0):
                self._middle_of(phrase, depth)
            else:
                self._relate(phrase, "direction", depth, position.direction)
        elif position.extreme:
            phrase.add(Extreme(opposite(position.direction) if reverse else position.direction))
        else:
            phrase.add(Region(position.direction, of_image))
        return True

    def _refers(self, phrase: NounPhrase, position: Position) -> bool:
        """Whether "left of ..." is a relation: not for "the leftmost of the ships", "the upper of the two"."""
        following = [self.peek(n).kind for n in range(1, 5)]
        if position.extreme or following[0] in ("end", "break", "direction"):
            return False
        counted = "number" in following[:2] or "both" in following[:2]
        bare = self.before(position.start).kind == "article" and self.before(position.start - 1).kind != "to"
        return phrase.has_noun or not (bare and counted)

    def _take_arrangement(self) -> bool:
        """Past "(of) the row", which is made of the candidates themselves; False if others are named ("of ships")."""
        ahead = 1 if self.peek().kind == "article" else 0
        found = self.peek(ahead).text in ARRANGEMENTS and self.peek(ahead + 1).kind != "of"
        self.at += ahead + 1 if found else 0
        return found

    def _middle_of(self, phrase: NounPhrase, depth: int) -> None:
        """ "in the middle of": of its own kind a place in their midst, of several others between them, else inside."""
        target = self._target(depth)
        if target.category == phrase.category:
            phrase.add(Region((0, 0), of_image=False))
        elif target.noun:
            phrase.add(Relation("between" if target.is_all else "in", (target,)))

    def _link(self, phrase: NounPhrase, lexeme: Lexeme, depth: int) -> None:
        """A preposition or relation, with the noun phrase that follows."""
        kind = lexeme.kind
        if kind in _SKIPPED:
            if lexeme.text in ("that", "which", "located", "there"):
                phrase.close_pending()
            return
        if kind == "heading":  # where an object points to is not where it lies; what it faces is near
            if not self.take_heading() and lexeme.text in ("facing", "faces"):
                self._relate(phrase, "near", depth)
            return
        phrase.close_pending()
        if kind == "category":  # a second noun without a link: "ship harbor", "house whose roof is red"
            self.at -= 1
            self._possessor(phrase, depth)
        elif kind == "of":
            self._partitive(phrase, depth)
        elif kind == "relative":
            direction = self.more_direction(lexeme.value)
            if not self._relate(phrase, "direction", depth, direction):  # "the ship below", "lower than the other"
                phrase.add(Region(direction, of_image=False))
        elif kind == "over":
            self._relate(phrase, "on", depth, lexeme.value)
        elif kind == "than":  # "closer to the bridge than the other ships"
            self._target(depth)
        elif kind == "between":
            self._relate(phrase, "between", depth)
        elif kind == "with":
            self._with(phrase, depth)
        elif kind in ("nearest", "farthest"):
            self._ranked_distance(phrase, lexeme, depth)
        elif kind in ("from", "to"):
            if not self._place(phrase, depth, extreme=kind == "from"):
                self._resume(phrase, depth)
        elif kind == "holds" and not self.starts_noun(or_unknown=True):
            pass  # "that has the largest wingspan": its own measure
        elif kind in _RELATIONS and not self._place(phrase, depth):
            self._relate(phrase, _RELATIONS[kind], depth)

    def _place(self, phrase: NounPhrase, depth: int, *, extreme: bool = False) -> bool:
        """ "[in] the upper left corner", "[in] the image": a place that is not a noun phrase of its own."""
        start = self.at
        self.skip("article", "indefinite", "filler")
        if self.peek().kind == "frame":
            self.at += 1
            return True
        if (self.is_place() or not phrase.has_noun) and self._take_position(phrase, depth, extreme=extreme):
            return True
        if self.peek().kind in ("part", "image_part"):
            self.at += 1
            return True
        self.at = start
        return False

    def _ranked_distance(self, phrase: NounPhrase, lexeme: Lexeme, depth: int) -> None:
        """ "closest to the left edge" is an extreme; "closest to the bridge" and "the closest ship to ..." relate."""
        start = self.at
        nearest = lexeme.kind == "nearest"
        self.skip("to", "from", "article")
        if self.peek().kind == "frame" and self.peek(1).kind in ("direction", "extreme"):  # "the image's left edge"
            self.at += 1
        if self.is_place() and self._take_position(phrase, depth, extreme=nearest, reverse=not nearest):
            return
        self.at = start
        self.skip("to", "from")
        kind: RelationKind = "nearest" if nearest else "farthest"
        if not phrase.has_noun and phrase.root and lexeme.text in ("nearest", "closest", "closer", "nearer"):
            phrase.constraints.append(Relation(kind, ()))
        else:
            self._relate(phrase, kind, depth)

    def _resume(self, phrase: NounPhrase, depth: int) -> None:
        """The "to the bridge" of "the nearest ship to the bridge"."""
        waiting = next((c for c in phrase.constraints if isinstance(c, Relation) and not c.targets), None)
        if waiting:
            phrase.constraints.remove(waiting)
            self._relate(phrase, waiting.kind, depth)

    def _relate(self, phrase: NounPhrase, kind: RelationKind, depth: int, direction: Direction = (None, None)) -> bool:
        """Reads the target, and more targets after "and"; whether there was one."""
        found = False
        while True:
            targets = [self._target(depth, one_of_two=kind == "between")]
            if kind == "between" and self.take_and_before_noun(or_unknown=True, or_one=True):
                targets.append(self._target(depth))
                if not targets[0].noun:  # "between the red and the blue ship"
                    targets[0] = replace(targets[0], category=targets[1].category, noun=targets[1].noun)
            known = tuple(
                t if t.noun else replace(t, category=phrase.category) for t in targets if t.noun or t.constraints
            )
            if known:
                found = True
                phrase.add(Relation(kind, known, direction))
            if not (phrase.has_noun and self.take_and_before_noun()):
                return found

    def _target(self, depth: int, *, one_of_two: bool = False) -> Query:
        if depth >= _MAX_DEPTH:
            return Query("")
        return self.noun_phrase(root=False, depth=depth + 1, one_of_two=one_of_two).query()

    def _with(self, phrase: NounPhrase, depth: int) -> None:
        """ "with a bridge to its left": the bridge is left of it, so it lies right of the bridge."""
        if not self.starts_noun():
            return
        target = self._target(depth)
        if target.category == phrase.category:  # "the house with a red roof"
            phrase.constraints += target.constraints
            return
        direction = self.take().value if self.peek().kind == "inverse" else None
        if direction is None:
            phrase.add(Relation("near", (target,)))
        while direction:
            phrase.add(Relation("direction", (target,), opposite(direction)))
            direction = None
            if self.peek().kind == "and" and self.peek(1).kind in ("direction", "inverse"):  # "to its left and right"
                self.at += 1
                direction = self.take().value

    def _partitive(self, phrase: NounPhrase, depth: int) -> None:
        """ "the largest of the ships", "a group of ships"; otherwise ("the ships of the harbor") nearness."""
        if self.peek().kind == "frame" or depth >= _MAX_DEPTH:
            return
        if phrase.category is not None or phrase.noun:
            self._possessor(phrase, depth)
            return
        partitive = phrase.selects and not phrase.all and phrase.count in (None, 1)
        pool = self.noun_phrase(root=False, depth=depth + 1)
        pool.close_pending()
        phrase.category, phrase.noun, phrase.has_noun = pool.category, pool.noun, True
        phrase.plural, phrase.partitive = pool.plural, partitive
        if partitive and pool.count is not None and pool.constraints:
            phrase.constraints.insert(0, Among(pool.query()))
        else:
            phrase.constraints[:0] = pool.constraints
        if not partitive and phrase.count is None:
            phrase.count = pool.count

    def _possessor(self, phrase: NounPhrase, depth: int) -> None:
        """ "of" after a noun: "the ship, the largest of all the ships", "roof of the house", "ships of the port"."""
        if self._place(phrase, depth):
            return
        target = self._target(depth)
        if target.category == phrase.category or not target.noun:  # "of the smallest size"
            phrase.constraints[:0] = target.constraints
        elif target.noun:
            phrase.add(Relation("near", (target,)))
