"""Referring expressions in English -> :class:`Query`.

A small recursive-descent parser over the lexemes of :mod:`dataset_tools.expressions.lexicon`:

    expression    := noun_phrase                                   (the first noun is what is asked for)
    noun_phrase   := modifier* noun (modifier | group | relation noun_phrase)*
    modifier      := number | order | colour | shape | size | position | extreme | state
    group         := modifier* ("row" | "pair" | ...) ["of" noun_phrase]
    relation      := "left of" | "near" | "between" | "on" | "with" | ...

Words between a relation and its noun, and after that noun, belong to that noun ("the ship left of the largest harbor on
the left"); a comma, "and", or a second verb goes back to the object asked for. Order is free: "on the left there is a
ship" and "ship, left" mean the same. Nothing is ever an error: words that mean something but fit nowhere are the
query's ``unread``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from dataset_tools.expressions.descriptive_words import HARMLESS, KIND_HINTS
from dataset_tools.expressions.grammar.cursor import LEADS, OPENS_NOUN
from dataset_tools.expressions.grammar.modifiers import Modifiers
from dataset_tools.expressions.grammar.noun_phrase import NounPhrase
from dataset_tools.expressions.lexicon import Lexeme, lexemes
from dataset_tools.expressions.query import (
    Extreme,
    Place,
    Query,
    Relation,
    State,
)

__all__ = ["Query", "parse"]


def parse(expression: str, own: Collection[str] = ()) -> Query:
    """What ``expression`` asks for. Never raises; words that it cannot read are in ``unread`` (see :class:`Query`).

    ``own`` are names of categories beside the canonical ones ("solar panel"), as a project's labels give them.
    """
    if not any(character.isalnum() for character in expression):
        return Query(expression, is_empty=True)
    words = lexemes(expression, own)
    parser = _Parser(words)
    query = parser.noun_phrase(root=True).query()
    if (
        query.category is None and not query.noun and parser.antecedent and parser.antecedent.category
    ):  # "not the car ... but the large one"
        query = replace(query, category=parser.antecedent.category, noun=parser.antecedent.noun)
    if query.category is None and query.unknown_words:  # "the paler, sandy diamond": the first noun is none
        unknown = set(query.noun.split())
        again = _Parser([word for word in words if word.text not in unknown]).noun_phrase(root=True).query()
        if again.category is not None:
            query = replace(again, unread=(*(w for w in query.noun.split() if w not in HARMLESS), *again.unread))
    return replace(query, text=expression, unread=tuple(dict.fromkeys((*query.unread, *_unread_within(query)))))


def _unread_within(query: Query) -> Iterator[str]:
    """What was not read of that which its conditions refer to."""
    for part in query.parts:
        yield from part.unread
        yield from _unread_within(part)


class _Parser(Modifiers):
    """The noun phrase: its noun, and its modifiers one by one."""

    def __init__(self, words: list[Lexeme]) -> None:
        super().__init__(words)
        self.root_has_noun = False
        self.root_counts = False

    def noun_phrase(self, *, root: bool, depth: int = 0, one_of_two: bool = False) -> NounPhrase:
        """Reads one noun with all that belongs to it; an inner one stops at words that belong to the outer one.

        ``one_of_two``: an "and" ends it even before its noun ("between the red and the blue ship").
        """
        phrase = NounPhrase(root)
        while self.at < len(self.words):
            said = phrase.constraints or phrase.count or phrase.rank
            begun = phrase.has_noun or phrase.pending or (said and self.peek().kind == "break")
            begun = begun or (phrase.rank is not None and self.peek().text == "but")  # "not the first but the second"
            if not root and begun and self._returns(phrase):
                break
            if one_of_two and (phrase.constraints or phrase.rank is not None) and self.peek().kind == "and":
                break
            before = self.at
            if self.group_ahead():
                if not root and phrase.has_noun and phrase.category is not None:
                    break
                phrase.close_pending()
                self.take_group(phrase, depth)
            elif root and phrase.has_noun and self._opens_clause() and self._tells_of_others(phrase, depth):
                pass  # "the slanted bridge, the other one is straight"
            elif root and phrase.has_noun and self._opens_clause() and self._selects_one(phrase):
                self._one_of_them(phrase)  # "four trailers stand by the house; the uppermost, please"
            elif root and phrase.has_noun and self._opens_clause() and self._new_subject(phrase):
                self.antecedent = phrase.query()  # "there is a large white ship; the boat right next to it"
                phrase.restart(read=True)
            elif root and phrase.has_noun and self.peek(-1).kind == "break" and self._other_noun(phrase):
                self.relate(phrase, "near", depth)  # "the white boat, second dock from the left"
            elif (
                root
                and phrase.category is None
                and phrase.noun
                and self.peek(-1).kind == "break"
                and self._known_noun()
            ):
                phrase.restart()  # "find the kart track; the soccer field just to its right"
            elif root and phrase.has_noun and self._stray_noun():
                phrase.close_pending()
                stray = self.target(depth)
                phrase.unread += [*stray.noun.split(), *stray.unread]
                phrase.constraints += [c for c in stray.constraints if isinstance(c, Place | Extreme | Relation)]
            elif not self._noun(phrase):
                break
            if self.at == before:
                self.modifier(phrase, depth)
            self.at = max(self.at, before + 1)
            if root:
                self.root_has_noun, self.root_counts = phrase.has_noun, phrase.rank is not None
        return phrase

    def _returns(self, phrase: NounPhrase) -> bool:
        """Whether the next word leads back to the phrase that this one is a target of."""
        kind, following = self.peek().kind, self.peek(1).kind
        if phrase.has_noun and kind in LEADS and self.peek(1).text == "it" and self.antecedent is None:
            return True  # "with a grey roof over it"
        if kind in ("break", "and", "there", "inverse", "not", "exclusion", "own"):
            return not (kind == "and" and self.peek(-1).kind == following == "color")
        if kind == "copula" or (kind == "with" and self.peek().text in ("has", "have")):
            if self.peek(-1).text in ("that", "which", "who"):
                return False
            return self.root_has_noun or following in OPENS_NOUN
        if self.peek().text in ("that", "which") and following == "copula":
            # "the car on the bridge that is the closest to ..." tells which car; "that is on the left" which bridge
            superlative = self.peek(3 if self.peek(2).kind == "article" else 2)
            return superlative.kind in ("extreme", "most", "nearest", "farthest", "ordinal") or (
                superlative.kind == "size" and superlative.value[2] == "superlative"
            )
        if kind == "article" and phrase.pending and not self.root_has_noun and self.one_ahead(1):
            return True  # "of the two bridges over the river take the one on the left"
        if kind == "from" and self.root_counts and phrase.rank is None:
            return True  # "the third house along the street from the right"
        if not phrase.has_noun:
            return False
        if kind == "heading" and phrase.category is None:
            return True  # "the ship in the channel heading north"
        if (phrase.indefinite or phrase.plural) and self._superlative_ahead():
            return True  # "the dock with ten boats furthest to the left"
        if (
            kind == "article"
            and not self.root_has_noun
            and (self.starts_noun(or_one=True) or (phrase.plural and self._selection_ahead()))
        ):  # "in the row of trailers the last one", "... the last but one"
            return True
        return kind in ("article", "indefinite", "number", "category") and self.starts_noun()

    def _superlative_ahead(self) -> bool:
        """Whether "leftmost", "furthest down", "closest to the top" comes, with no noun of its own."""
        ahead = 0
        while self.peek(ahead).kind in ("nearest", "most", "far", "to", "on", "article"):
            ahead += 1
        if self.peek(ahead).kind not in ("direction", "extreme") or self.starts_noun(or_one=True):
            return False
        return self.peek(ahead).kind == "extreme" or self.peek().kind in ("nearest", "most", "far")

    def _noun(self, phrase: NounPhrase) -> bool:
        """Takes the next word if it is a noun of this phrase; False if it is the noun of another one."""
        lexeme = self.peek()
        if (
            lexeme.text == "outer"
            and phrase.root
            and not phrase.has_noun
            and (phrase.count == 2 or self.peek(1).text == "two")
        ):
            phrase.add(State("end"))  # "the two outer planes"
            self.at += 1
        elif lexeme.kind == "unknown":
            if lexeme.text not in HARMLESS:
                (phrase.unread if phrase.has_noun else phrase.pending).append(lexeme.text)
            self.at += 1
        elif lexeme.kind == "one":
            self.at += 1
            self._pronoun(phrase, lexeme)
        elif lexeme.kind == "category":
            if self._only_modifies(lexeme):
                self.at += 1
            elif phrase.category is None and not phrase.noun:
                self.at += 1
                if not self._owner(phrase, lexeme):
                    self._head(phrase, lexeme)
            elif phrase.root and lexeme.value.category == phrase.category and self._again(phrase, lexeme):
                self.at += 1
            elif not phrase.root:
                return False
        return True

    def _only_modifies(self, lexeme: Lexeme) -> bool:
        """Whether another noun follows at once, which is the head: "boat shed", "tanker-like truck"."""
        following = self.peek(2) if self.peek(1).text == "like" else self.peek(1)
        if following.kind != "category":
            return False
        return following.value.category != lexeme.value.category or lexeme.text.split()[-1] == "roof"

    def _head(self, phrase: NounPhrase, lexeme: Lexeme) -> None:
        phrase.category, phrase.noun, phrase.has_noun = lexeme.value.category, lexeme.text, True
        phrase.plural = lexeme.value.plural
        phrase.hint = KIND_HINTS.get(lexeme.text.split()[-1].rstrip("s"), "")
        phrase.unread += phrase.pending  # "the propeller plane"
        phrase.pending = []

    def _owner(self, phrase: NounPhrase, lexeme: Lexeme) -> bool:
        """ "the ship's harbor": the first noun is only near what is asked for."""
        if self.peek().kind != "possessive" or not self.starts_noun_within(1, 4):
            return False
        owner = Query(lexeme.text, lexeme.value.category, lexeme.text, constraints=tuple(phrase.constraints))
        phrase.constraints = [Relation("near", (owner,))]
        return True

    def _pronoun(self, phrase: NounPhrase, lexeme: Lexeme) -> None:
        if phrase.pending and self.peek().kind != "of":
            phrase.close_pending()
        said_before = next((c for c in phrase.constraints if isinstance(c, Relation)), None)
        if said_before and not phrase.has_noun and phrase.category is None and self._another_before():
            phrase.category = said_before.targets[0].category  # "below a white truck there's another one"
        if lexeme.text == "one" and not phrase.has_noun and self.starts_noun():
            phrase.count = 1
        elif phrase.has_noun and phrase.root and lexeme.text == "one" and not phrase.negate:
            if phrase.count and phrase.count > 1 and self._enumerates():
                self.at = len(self.words)
            else:
                self._one_of_them(phrase)  # "there are two ships, the left one"
        elif not phrase.has_noun:
            phrase.has_noun, phrase.plural = True, lexeme.text.endswith("s")

    def _another_before(self) -> bool:
        """Whether "another" was said with the "one" that was just taken."""
        back = 2
        while self.peek(-back).kind in ("color", "size", "shape", "state"):
            back += 1
        return self.peek(-back).text in ("another", "other", "a second")
