"""Referring expressions in English -> :class:`Query`.

A small recursive-descent parser over the lexemes of :mod:`dataset_tools.expression_lexicon`:

    expression    := noun_phrase                                   (the first noun is what is asked for)
    noun_phrase   := modifier* noun (modifier | relation noun_phrase)*
    modifier      := number | order | colour | shape | size | position | extreme
    relation      := "left of" | "near" | "between" | "on" | "with" | ...

Words between a relation and its noun, and after that noun, belong to that noun ("the ship left of the largest harbor on
the left"); a comma, "and", or a second verb goes back to the object asked for. Order is free: "on the left there is a
ship" and "ship, left" mean the same. Nothing is ever an error: words that fit nowhere are skipped.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace

from dataset_tools.categories import CATEGORIES, canonical, plural_of
from dataset_tools.expression_lexicon import Lexeme, combine, lexemes
from dataset_tools.expression_query import (
    Among,
    Color,
    Constraint,
    Direction,
    Extreme,
    Query,
    Region,
    Relation,
    RelationKind,
    Shape,
    Size,
)

__all__ = ["Color", "Constraint", "Direction", "Extreme", "Query", "Region", "Relation", "Shape", "Size", "parse"]

_MAX_DEPTH = 6
_MAX_NOUN = 60
_RELATIONS: dict[str, RelationKind] = {
    "near": "near",
    "far_from": "far",
    "on": "on",
    "in": "in",
    "surrounded": "surrounded",
    "holds": "holds",
}
_PREPOSITIONS = ("in", "on", "near", "of", "from", "to", "nearest")
_ARRANGEMENTS = ("row", "line", "column", "group", "cluster")
_OPENS_NOUN = ("article", "indefinite", "all", "both", "number", "color", "shape", "size", "ordinal", "one", "category")
_END = Lexeme("end", "")


def parse(expression: str) -> Query:
    """What ``expression`` asks for. Never raises; whatever it cannot read is left out (see :class:`Query`)."""
    if not any(character.isalnum() for character in expression):
        return Query(expression, is_empty=True)
    parser = _Parser(lexemes(expression))
    return replace(parser.noun_phrase(root=True).query(), text=expression)


@dataclass
class _NounPhrase:
    """A noun phrase while its words come in."""

    root: bool
    category: str | None = None
    noun: str = ""
    has_noun: bool = False
    plural: bool | None = None
    all: bool = False
    count: int | None = None
    rank: int | None = None
    indefinite: bool = True
    partitive: bool = False
    negate: bool = False
    pending: list[str] = field(default_factory=list)
    constraints: list[Constraint] = field(default_factory=list)

    def add(self, constraint: Constraint) -> None:
        self.constraints.append(replace(constraint, negated=True) if self.negate else constraint)

    def close_pending(self) -> None:
        """Unknown words right before a preposition or verb are the noun; before a noun they only modify it."""
        if self.pending and not self.has_noun:
            nouns = [w for w in self.pending if not w.endswith(("ed", "ly"))] or self.pending
            self.noun, self.has_noun = " ".join(nouns)[:_MAX_NOUN], True
            self.category = _misspelt(self.noun)
        self.pending = []

    @property
    def selects(self) -> bool:
        """Whether words before "of the ships" pick some of them ("the largest of", "one of", "the second of")."""
        return self.has_noun or bool(self.constraints) or self.rank is not None

    def query(self) -> Query:
        self.close_pending()
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
            is_indefinite=self.indefinite,
            constraints=tuple(_ranked([c for c in self.constraints if not _unresolved(c)], self.rank)),
        )


def _unresolved(constraint: Constraint) -> bool:
    """A "nearest" or "farthest" that never said to what."""
    return isinstance(constraint, Relation) and not constraint.targets


def _ranked(constraints: list[Constraint], rank: int | None) -> list[Constraint]:
    """An ordinal ("second") goes to the order it counts in: an extreme, a size, or else a side ("on the left")."""
    if rank is None:
        return constraints
    for kind in (Extreme, Size, Region):
        for index, constraint in enumerate(constraints):
            if not isinstance(constraint, kind):
                continue
            ranked: Constraint
            if isinstance(constraint, Size):
                ranked = replace(constraint, rank=rank, superlative=True)
            elif (isinstance(constraint, Region) and not constraint.of_image) or isinstance(constraint, Extreme):
                ranked = Extreme(constraint.direction, rank, constraint.negated)
            else:
                continue
            return [*constraints[:index], ranked, *constraints[index + 1 :]]
    return [*constraints, Extreme((-1, None), rank)]  # "the second plane": read from the left


def _misspelt(noun: str) -> str | None:
    """The category whose name is a slip away from a long unknown noun ("aiplane", "storge tank"), else None."""
    word = re.sub(r"\W", "", noun)
    if not 6 <= len(word) <= 30 or not word.isascii():
        return None
    names = [n for c in CATEGORIES.values() for one in (c.display, *c.aliases) for n in (one, plural_of(one))]
    close = [n for n in names if len(n) >= 6 and n[0] == word[0]]
    match = difflib.get_close_matches(word, [n.replace(" ", "") for n in close], 1, cutoff=0.9)
    return canonical(match[0]) if match else None


class _Parser:
    """Reads lexemes from left to right."""

    def __init__(self, words: list[Lexeme]) -> None:
        self.words = words
        self.at = 0
        self.root_has_noun = False

    def peek(self, ahead: int = 0) -> Lexeme:
        index = self.at + ahead
        return self.words[index] if index < len(self.words) else _END

    def take(self) -> Lexeme:
        lexeme = self.peek()
        self.at += 1
        return lexeme

    def skip(self, *kinds: str) -> None:
        while self.peek().kind in kinds:
            self.at += 1

    def noun_phrase(self, *, root: bool, depth: int = 0) -> _NounPhrase:
        """Reads one noun with all that belongs to it; an inner one stops at words that belong to the outer one."""
        phrase = _NounPhrase(root)
        while self.at < len(self.words):
            if not root and phrase.has_noun and self._returns():
                break
            before = self.at
            ended = not self._noun(phrase)
            if not ended and self.at == before:
                self._modifier(phrase, depth)
            if ended:
                break
            if self.at == before:
                self.at += 1
            if root:
                self.root_has_noun = phrase.has_noun
        return phrase

    def _returns(self) -> bool:
        kind, following = self.peek().kind, self.peek(1).kind
        if kind in ("break", "and", "there", "inverse"):
            return True
        if kind == "copula":
            return not self.root_has_noun and following in _OPENS_NOUN
        if kind == "article" and not self.root_has_noun and self._starts_noun(or_one=True):
            return True
        return kind in ("article", "indefinite", "number", "category") and self._starts_noun()

    def _starts_noun(self, *, also_unknown: bool = False, or_one: bool = False) -> bool:
        """Whether a noun phrase with a known noun comes next, with no preposition in between."""
        ahead = 0
        openers = (*_OPENS_NOUN, "direction", "extreme", "unknown", "filler", "group", "most")
        while self.peek(ahead).kind in openers:
            kind = self.peek(ahead).kind
            if kind == "category" or (also_unknown and kind == "unknown") or (or_one and kind == "one"):
                return True
            ahead += 1
        return False

    def _noun(self, phrase: _NounPhrase) -> bool:
        """Takes the next word if it is a noun of this phrase; False if it is the noun of another one."""
        lexeme = self.peek()
        if lexeme.kind == "unknown":
            if not phrase.has_noun:
                phrase.pending.append(lexeme.text)
            self.at += 1
        elif lexeme.kind == "one":
            self.at += 1
            if phrase.pending and self.peek().kind not in ("of",):
                phrase.close_pending()
            if lexeme.text == "one" and not phrase.has_noun and self._starts_noun():
                phrase.count = 1
            elif phrase.has_noun and phrase.root and lexeme.text == "one" and not phrase.negate:
                phrase.partitive, phrase.all, phrase.count = True, False, None  # "there are two ships, the left one"
            elif not phrase.has_noun:
                phrase.has_noun, phrase.plural = True, lexeme.text.endswith("s")
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

    def _modifier(self, phrase: _NounPhrase, depth: int) -> None:
        lexeme = self.peek()
        start = self.at
        match lexeme.kind:
            case "article" | "indefinite":
                phrase.indefinite &= lexeme.kind == "indefinite" or phrase.has_noun
            case "all":
                phrase.all |= not phrase.has_noun
            case "both":
                phrase.all, phrase.count = True, 2
            case "number":
                if not phrase.has_noun:
                    phrase.count = lexeme.value
            case "ordinal":
                phrase.rank = lexeme.value
            case "color":
                phrase.add(Color(lexeme.value))
            case "shape":
                phrase.add(Shape(lexeme.value))
            case "size":
                self.at += 1
                self._size(phrase, lexeme, depth)
                return
            case "not":
                phrase.close_pending()
                phrase.negate = True
            case "direction" | "extreme" | "most" | "far":
                self._position(phrase, depth)
                return
            case "copula":
                phrase.close_pending()
                if lexeme.text in ("are", "were", "lie") and phrase.plural is None:
                    phrase.plural = True
            case "break" | "and":
                phrase.close_pending()
                phrase.negate &= lexeme.kind == "and"
            case "frame":
                phrase.pending = []
            case "group":
                phrase.pending = [] if phrase.root or self.peek(1).kind == "of" else [lexeme.text]
            case _:
                self._link(phrase, depth)
                return
        self.at = start + 1

    def _size(self, phrase: _NounPhrase, lexeme: Lexeme, depth: int) -> None:
        sign, measure, degree = lexeme.value
        if degree == "comparative":
            ahead = next((n for n in range(3) if self.peek(n).kind == "than"), None)
            if ahead is not None:
                self.at += ahead + 1
                if self._relate(phrase, "larger" if sign > 0 else "smaller", depth):
                    return
        phrase.add(Size(sign, degree != "positive", measure))

    def _position(self, phrase: _NounPhrase, depth: int, *, nearest: bool = False, in_image: bool = False) -> bool:
        """A direction with what surrounds it: "far left", "upper left corner of the image", "left side of the bridge".

        Returns whether there was one; False leaves ``at`` unchanged.
        """
        start = self.at
        extreme = nearest
        while self.peek().kind in ("most", "far"):
            extreme = True
            self.at += 1
        if extreme:
            while self.peek().kind in ("article", "to", "on", "in", "part") or self.peek().text in ("at", "towards"):
                self.at += 1
        if self.peek().kind not in ("direction", "extreme"):
            self.at = start + (0 if nearest else 1)
            if not nearest and self.words[start].text in ("farthest", "furthest"):
                phrase.constraints.append(Relation("farthest", ()))
            return False
        direction: Direction = (None, None)
        while self.peek().kind in ("direction", "extreme") or (
            self.peek().kind in ("most", "and") and self.peek(1).kind in ("direction", "extreme")
        ):
            lexeme = self.take()
            if lexeme.kind == "and" and not self._joins(direction):
                self.at -= 1
                break
            if lexeme.kind in ("extreme", "most"):
                extreme = True
            if lexeme.kind in ("direction", "extreme"):
                direction = combine(direction, lexeme.value)
        while self.peek().kind in ("part", "image_part") or self.peek().text in (*_ARRANGEMENTS, "most", "edge"):
            in_image |= self.peek().kind == "image_part"
            self.at += 1
        self._of(phrase, direction, depth, extreme=extreme, in_image=in_image, bare=start)
        return True

    def _joins(self, direction: Direction) -> bool:
        """Whether the direction after an "and" completes this one ("top and left") and is not another one."""
        other: Direction = self.peek().value
        return (direction[0] is None) != (other[0] is None) and (direction[1] is None) != (other[1] is None)

    def _of(
        self, phrase: _NounPhrase, direction: Direction, depth: int, *, extreme: bool, in_image: bool, bare: int
    ) -> None:
        """What a direction refers to: the image, another noun, the candidates ("the upper of the two"), or nothing."""
        start = self.at
        joint = self.peek()
        if joint.kind in ("of", "from", "to", "in", "on", "and") or joint.text == "at":
            self.at += 1
            self.skip("article", "filler", "all")
            if self.peek().kind == "frame":
                self.at += 1
                in_image = True
            else:
                self.at = start
                if joint.kind in ("of", "from", "to") and self._refers(phrase, extreme, bare):
                    self.at += 1
                    if direction == (0, 0):
                        self._middle_of(phrase, depth)
                    else:
                        self._relate(phrase, "direction", depth, direction)
                    return
        if extreme:
            phrase.add(Extreme(direction))
        else:
            before = self.words[bare - 1].kind if bare else ""
            phrase.add(Region(direction, in_image or before == "frame"))

    def _middle_of(self, phrase: _NounPhrase, depth: int) -> None:
        """ "in the middle of": of its own kind a place in their midst, of several others between them, else inside."""
        target = self._target(depth)
        if target.category == phrase.category:
            phrase.add(Region((0, 0), of_image=False))
        elif target.noun:
            phrase.add(Relation("between" if target.is_all else "in", (target,)))

    def _refers(self, phrase: _NounPhrase, extreme: bool, bare: int) -> bool:
        """Whether "left of ..." is a relation: not for "the leftmost of the ships", "the upper of the two"."""
        following = [self.peek(n).kind for n in range(1, 5)]
        if extreme or following[0] in ("end", "break", "direction"):
            return False
        before = self.words[bare - 1].kind if bare else ""
        counted = "number" in following[:2] or "both" in following[:2]
        return phrase.has_noun or not (
            before == "article" and counted and (bare < 2 or self.words[bare - 2].kind != "to")
        )

    def _link(self, phrase: _NounPhrase, depth: int) -> None:
        """Prepositions and relations, each with the noun phrase that follows."""
        lexeme = self.peek()
        kind = lexeme.kind
        self.at += 1
        if kind in ("filler", "one", "unknown", "article", "frame", "part", "image_part", "inverse", "there", "than"):
            if kind in ("filler", "there") and lexeme.text in ("that", "which", "located", "there"):
                phrase.close_pending()
            return
        phrase.close_pending()
        if kind == "category":  # a second noun without a link: "ship harbor"
            self.at -= 1
            self._relate(phrase, "near", depth)
        elif kind == "of":
            self._partitive(phrase, depth)
        elif kind == "relative":
            self._relate(phrase, "direction", depth, self._more_direction(lexeme.value))
        elif kind == "heading":
            self._heading(phrase, lexeme, depth)
        elif kind == "between":
            self._relate(phrase, "between", depth)
        elif kind == "with":
            self._with(phrase, depth)
        elif kind in ("nearest", "farthest"):
            self._ranked_distance(phrase, lexeme, depth)
        elif kind in ("from", "to"):
            if self._place(phrase, depth, extreme=kind == "from"):
                return
            waiting = next((c for c in phrase.constraints if isinstance(c, Relation) and not c.targets), None)
            if waiting:
                phrase.constraints.remove(waiting)
                self._relate(phrase, waiting.kind, depth)
        elif kind in _RELATIONS and not self._place(phrase, depth):
            self._relate(phrase, _RELATIONS[kind], depth)

    def _more_direction(self, direction: Direction) -> Direction:
        """The direction after "above and to the left of ..."; leaves ``at`` before the target."""
        start = self.at
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

    def _heading(self, phrase: _NounPhrase, lexeme: Lexeme, depth: int) -> None:
        """Where an object points to ("facing left") is not where it lies; what it faces is near."""
        start = self.at
        while self.peek().kind in ("to", "article", "filler", "copula", "heading") or self.peek().text.startswith(
            "toward"
        ):
            self.at += 1
        if self.peek().kind == "direction":
            self.skip("direction")
            return
        self.at = start
        if lexeme.text in ("facing", "faces"):
            self._relate(phrase, "near", depth)

    def _place(self, phrase: _NounPhrase, depth: int, *, extreme: bool = False) -> bool:
        """ "[in] the upper left corner", "[in] the image": a place that is not a noun phrase of its own."""
        start = self.at
        self.skip("article", "indefinite", "filler")
        if self.peek().kind == "frame":
            self.at += 1
            return True
        ahead = 0
        places = ("direction", "extreme", "most", "far", "part", "image_part")
        while self.peek(ahead).kind in places or (ahead and self.peek(ahead).text in _ARRANGEMENTS):
            ahead += 1
        noun_follows = self.peek(ahead).kind in ("category", "one", "color", "size") and phrase.has_noun
        if ahead and not noun_follows and self._position(phrase, depth, nearest=extreme):
            return True
        if self.peek().kind in ("part", "image_part"):
            self.at += 1
            return True
        self.at = start
        return False

    def _ranked_distance(self, phrase: _NounPhrase, lexeme: Lexeme, depth: int) -> None:
        """ "closest to the left edge" is an extreme; "closest to the bridge" and "the closest ship to ..." relate."""
        start = self.at
        self.skip("to", "from", "article")
        if self._position(phrase, depth, nearest=lexeme.kind == "nearest") and lexeme.kind == "nearest":
            return
        self.at = start
        self.skip("to", "from")
        kind: RelationKind = "nearest" if lexeme.kind == "nearest" else "farthest"
        if not phrase.has_noun and phrase.root and lexeme.text in ("nearest", "closest", "closer", "nearer"):
            phrase.constraints.append(Relation(kind, ()))
        else:
            self._relate(phrase, kind, depth)

    def _relate(self, phrase: _NounPhrase, kind: RelationKind, depth: int, direction: Direction = (None, None)) -> bool:
        """Reads the target, and more targets after "and"; whether there was one."""
        found = False
        while depth < _MAX_DEPTH:
            targets = [self._target(depth)]
            if kind == "between" and self.peek().kind == "and" and self._after_and(also_unknown=True):
                targets.append(self._target(depth))
            known = tuple(
                t if t.noun else replace(t, category=phrase.category) for t in targets if t.noun or t.constraints
            )
            found |= bool(known)
            if known:
                phrase.add(Relation(kind, known, direction))
            if not (phrase.has_noun and self.peek().kind == "and" and self._after_and()):
                break
        return found

    def _after_and(self, *, also_unknown: bool = False) -> bool:
        self.at += 1
        if self._starts_noun(also_unknown=also_unknown):
            return True
        self.at -= 1
        return False

    def _target(self, depth: int) -> Query:
        return self.noun_phrase(root=False, depth=depth + 1).query()

    def _with(self, phrase: _NounPhrase, depth: int) -> None:
        """ "with a bridge to its left": the bridge is left of it, so it lies right of the bridge."""
        if not self._starts_noun():
            return
        target = self._target(depth)
        if target.category == phrase.category:  # "the house with a red roof"
            phrase.constraints += target.constraints
            return
        direction = self.take().value if self.peek().kind == "inverse" else None
        if direction is None:
            phrase.add(Relation("near", (target,)))
        while direction:
            opposite = tuple(None if v is None else -v for v in direction)
            phrase.add(Relation("direction", (target,), (opposite[0], opposite[1])))
            direction = None
            if self.peek().kind == "and" and self.peek(1).kind in ("direction", "inverse"):  # "to its left and right"
                self.at += 1
                direction = self.take().value

    def _partitive(self, phrase: _NounPhrase, depth: int) -> None:
        """ "the largest of the ships", "a group of ships"; otherwise ("the ships of the harbor") nearness."""
        if self.peek().kind == "frame" or depth >= _MAX_DEPTH:
            return
        if phrase.category is not None or phrase.noun:
            if self._place(phrase, depth):
                return
            target = self._target(depth)
            if target.category == phrase.category:  # "the ship, the largest of all the ships", "roof of the red house"
                phrase.constraints[:0] = target.constraints
            elif target.noun:
                phrase.add(Relation("near", (target,)))
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
