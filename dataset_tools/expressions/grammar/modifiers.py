"""Reads the words of a noun phrase one by one: numbers, orders, colours, sizes, places; the rest leads on to others."""

from __future__ import annotations

from dataclasses import replace

from dataset_tools.expressions.grammar.belongings import PARTS
from dataset_tools.expressions.grammar.contexts import Contexts
from dataset_tools.expressions.grammar.noun_phrase import NounPhrase
from dataset_tools.expressions.lexicon import Lexeme
from dataset_tools.expressions.query import (
    Among,
    Color,
    Extreme,
    Part,
    Place,
    Relation,
    Shape,
    Size,
    State,
    opposite,
)

__all__ = ["Modifiers"]


class Modifiers(Contexts):
    """One word, with what belongs to it."""

    def modifier(self, phrase: NounPhrase, depth: int) -> None:
        """Takes the next word into the phrase, with what belongs to it."""
        lexeme = self.take()
        match lexeme.kind:
            case "article" | "indefinite":
                phrase.indefinite |= lexeme.kind == "indefinite" and not phrase.has_noun
                phrase.at_article = len(phrase.constraints)
            case "all":
                phrase.all |= not phrase.has_noun
                if lexeme.text in ("everything", "everyone"):
                    phrase.has_noun = True
            case "both":
                phrase.all, phrase.count = True, 2
            case "number":
                self._number(phrase, lexeme)
            case "ordinal":
                if phrase.rank is None or not phrase.breaks:  # "the fourth, second to last before the gap": the fourth
                    phrase.rank, phrase.is_last = lexeme.value, lexeme.text == "last"
            case "color":
                self._color(phrase, lexeme)
            case "shape":
                if lexeme.text != "diagonally" or self.peek().kind not in (
                    "relative", "direction", "near", "over", "to", "on",
                ):  # fmt: skip
                    phrase.add(Shape(lexeme.value))
            case "state":
                phrase.add(State(lexeme.value))
            case "size":
                self._size(phrase, lexeme, depth)
            case "non":  # "non-white"
                if self.peek().kind == "color":
                    phrase.constraints.append(Color(self.take().value, negated=True))
                elif self.peek().kind in ("size", "extreme"):
                    scratch = NounPhrase(root=False)
                    self.modifier(scratch, depth)
                    phrase.constraints.append(Among(scratch.query(), negated=True))
            case "exclusion" if lexeme.text == "all but":
                phrase.all |= not phrase.has_noun
                if not self.exclusion(phrase, depth):
                    phrase.negate = True
            case "not" if lexeme.text == "neither" and self.neither(phrase, depth):
                pass
            case "not" | "exclusion" | "without" if self.exclusion(phrase, depth, same_only=lexeme.kind == "without"):
                pass
            case "not" | "exclusion":
                phrase.close_pending()
                phrase.negate = True
            case "no":  # "ship no. 3", "with no boats"
                if self.peek().text == ".":
                    self.at += 1
                if self.peek().kind != "number":
                    self.link(phrase, Lexeme("without", "no"), depth)
            case "extreme" if lexeme.text.startswith("from ") and phrase.rank is None:
                pass  # "a bridge that crosses from left to right"
            case "direction" if phrase.rank is not None and lexeme.text in ("up", "down"):
                if self.peek().kind != "from":  # "the third one down" is counted from above
                    phrase.add(Extreme(opposite(lexeme.value), phrase.rank))
                    phrase.rank = None
            case "besides":
                self._one_further(phrase, lexeme.value)
            case "most" if lexeme.text == "outermost" and self.peek().kind not in ("direction", "extreme", "to"):
                phrase.add(State("end"))
            case "direction" | "extreme" | "most" | "far":
                self.at -= 1
                if not self._down_the_road(phrase, lexeme, depth) and not self.take_position(phrase, depth):
                    if lexeme.text in ("farthest", "furthest", "farther", "further"):
                        phrase.constraints.append(Relation("farthest", ()))
                    elif lexeme.text == "most":
                        phrase.unread.append("most")  # "with the most boats"
            case "copula":
                phrase.close_pending()
                if lexeme.text in ("are", "were", "lie") and phrase.plural is None:
                    phrase.plural = True
            case "break" | "and":
                self._break(phrase, lexeme, depth)
            case "frame":
                phrase.unread = [w for w in phrase.unread if w not in phrase.pending]
                phrase.pending = []
            case _:
                self.link(phrase, lexeme, depth)

    def _break(self, phrase: NounPhrase, lexeme: Lexeme, depth: int) -> None:
        phrase.close_pending()
        if lexeme.kind == "break" and phrase.has_noun:
            phrase.context = len(phrase.constraints)
            phrase.breaks.append(phrase.context)
        if phrase.root and phrase.has_noun and (phrase.all or (phrase.count or 0) > 1) and self._lists_them():
            while self.at < len(self.words) and self.peek().text not in (".", ";", "!"):
                self.at += 1
            return
        if lexeme.text == "but" and (phrase.all or phrase.plural) and self.exclusion(phrase, depth):
            return
        phrase.negate &= lexeme.text != "but"  # "not at the top or the bottom but in the middle"
        phrase.negate &= lexeme.kind == "and" or self.peek().kind == "color"  # "not gray, white or green"
        phrase.negate |= lexeme.text == "but" and phrase.all  # "every plane but the largest"

    def _number(self, phrase: NounPhrase, lexeme: Lexeme) -> None:
        if not phrase.has_noun and self.before(self.at - 1).text in ("count", "counting"):
            phrase.rank, phrase.partitive = lexeme.value, True  # "count four planes from the left"
        elif self.before(self.at - 1).text == "number":
            phrase.rank = lexeme.value  # "it is number two counting from the left"
        elif not phrase.has_noun and self._measures():
            phrase.unread.append(lexeme.text)  # "a two-lane bridge"
        elif not phrase.has_noun and self.before(self.at - 1).kind not in ("numbered", "no"):
            phrase.count = lexeme.value
        elif any(self.peek(n).kind == "from" for n in range(5)):
            phrase.rank = lexeme.value  # "ship no. 3 from the left"

    def _measures(self) -> bool:
        """Whether the number belongs to an unknown word before a single noun: "four-engined plane"."""
        ahead = 0
        while self.peek(ahead).kind == "unknown":
            ahead += 1
        head = self.peek(ahead)
        single = head.kind == "category" and head.value.plural is False and self.peek(ahead + 1).kind != "unknown"
        return ahead > 0 and single

    def _one_further(self, phrase: NounPhrase, further: int) -> None:
        """ "the leftmost but one", "the left plane but two"."""
        for index in reversed(range(len(phrase.constraints))):
            order = phrase.constraints[index]
            if isinstance(order, Place) and not order.of_image:
                order = Extreme(order.direction)
            if isinstance(order, Extreme | Size):
                phrase.constraints[index] = replace(order, rank=order.rank + further)
                return
        phrase.unread.append("but")

    def _down_the_road(self, phrase: NounPhrase, lexeme: Lexeme, depth: int) -> bool:
        """Past "(driving) down the main road", which is along it."""
        if lexeme.text not in ("up", "down") or self.peek(1).kind != "article" or self.group_ahead(1):
            return False
        start = self.at
        self.at += 1
        if self.starts_noun(or_unknown=True) and not self.one_ahead(1):
            self.relate(phrase, "near", depth)
            return True
        self.at = start
        return False

    def _color(self, phrase: NounPhrase, lexeme: Lexeme) -> None:
        """One colour, or two of one object ("blue and red"); "green-topped" is the colour of a part."""
        vague = lexeme.text == "bright" or lexeme.text.endswith("ish")  # vivid rather than light; reddish brown
        if vague and self.peek().kind == "color" and self.peek().value not in ("dark", "light"):
            lexeme = self.take()
        names = [lexeme.value]
        while not phrase.negate and self.peek().text == "and" and self.peek(1).kind == "color":
            self.at += 1
            names.append(self.take().value)
        part = ""
        named = self.peek().kind == "unknown" and self.peek().text in PARTS and (phrase.root or phrase.has_noun)
        if self.peek().kind == "partword" or named:  # "green-topped", "red tail"
            part = self.take().text
        for name in names:
            phrase.add(Part(name, part) if part or len(names) > 1 else Color(name))

    def _size(self, phrase: NounPhrase, lexeme: Lexeme, depth: int) -> None:
        sign, measure, degree = lexeme.value
        if degree == "comparative":
            ahead = next((n for n in range(3) if self.peek(n).kind == "than"), None)
            if ahead is not None:
                self.at += ahead + 1
                if self._all_others():  # "longer than all the others"
                    phrase.add(Size(sign, superlative=True, measure=measure))
                    return
                if self.relate(phrase, "larger" if sign > 0 else "smaller", depth):
                    return
        phrase.add(Size(sign, degree != "positive", measure))

    def _all_others(self) -> bool:
        """Past "all the others", "any other"; False, and nothing taken, if something else follows "than"."""
        start = self.at
        self.skip("article", "all", "indefinite", "filler")
        if self.peek().text in ("others", "rest", "other ones", "all others", "all the others"):
            self.at += 1
            return True
        self.at = start
        return False
