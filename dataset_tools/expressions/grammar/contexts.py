"""Reads sentences that describe first and ask afterwards: "two boats lie at the pier; the left one"."""

from __future__ import annotations

from dataclasses import replace

from dataset_tools.expressions.descriptive_words import HARMLESS
from dataset_tools.expressions.grammar.cursor import LEADS
from dataset_tools.expressions.grammar.links import Links
from dataset_tools.expressions.grammar.noun_phrase import NounPhrase
from dataset_tools.expressions.lexicon import Lexeme
from dataset_tools.expressions.query import Among, Constraint, Group

__all__ = ["Contexts"]


class Contexts(Links):
    """Clauses, and which of them asks."""

    def _other_noun(self, phrase: NounPhrase) -> bool:
        """Whether a noun phrase of another category comes right next."""
        ahead = 0
        while self.peek(ahead).kind in (
            "article",
            "ordinal",
            "color",
            "size",
            "shape",
            "extreme",
            "direction",
            "number",
        ):
            ahead += 1
        lexeme = self.peek(ahead)
        return lexeme.kind == "category" and phrase.category not in (None, lexeme.value.category)

    def _opens_clause(self) -> bool:
        """Whether a comma or a full stop comes right before, or "; I mean"."""
        back = -1
        while self.peek(back).kind in ("filler", "copula", "there") and self.at + back > 0:
            back -= 1
        return self.peek(back).kind == "break"

    def _selects_one(self, phrase: NounPhrase) -> bool:
        """Whether one of several that were described is picked now, without a noun: "; the uppermost, please"."""
        return (phrase.plural or (phrase.count or 0) > 1) and not phrase.partitive and self._selection_ahead()

    def _selection_ahead(self) -> bool:
        """Whether "the uppermost", "the last but one" comes, with no noun of its own."""
        if self.peek().kind != "article":
            return False
        ahead = 1
        while self.peek(ahead).kind in (
            "direction",
            "extreme",
            "size",
            "ordinal",
            "most",
            "color",
            "nearest",
            "farthest",
        ):
            ahead += 1
        return ahead > 1 and self.peek(ahead).kind in ("end", "break", "filler", "in", "at", "on", "of", "near", "from")

    def _new_subject(self, phrase: NounPhrase) -> bool:
        """Whether what was described so far is only what "it" stands for in what is asked for now."""
        if self.peek().kind not in ("article", "indefinite") or phrase.plural or phrase.category is None:
            return False
        if not (self.starts_noun() or self.one_ahead(1)):
            return False
        rest = self.words[self.at :]
        kinds = [word.kind for word in rest]
        if "break" in kinds:
            rest = rest[: kinds.index("break")]
        return not any(w.kind == "with" for w in rest) and any(
            w.kind == "inverse" or (w.text == "it" and n and rest[n - 1].kind in LEADS) for n, w in enumerate(rest)
        )

    def _tells_of_others(self, phrase: NounPhrase, depth: int) -> bool:
        """Past "; the other one is red": what is said of the others excludes them; False if no such clause comes."""
        start = self.at
        self.skip("article", "there", "and")
        if self.peek().text not in (
            "other",
            "other one",
            "others",
            "other ones",
            "all others",
            "all the others",
            "rest",
        ):
            self.at = start
            return False
        self.at += 1
        if self.peek().kind == "number":
            self.at += 1
        self.skip("one")
        if self.peek().kind == "copula":
            self.at += 1
        elif self.peek().kind not in ("with", "state"):
            self.at = start
            return False
        others = self.target(depth)
        phrase.unread += others.unread
        if others.constraints:
            phrase.constraints.append(Among(replace(others, category=None, noun="", unknown_words=()), negated=True))
        return True

    def _known_noun(self) -> bool:
        """Whether a noun phrase of a known category comes right next, with an article of its own."""
        return self.peek().kind in ("article", "indefinite") and self.starts_noun()

    def _stray_noun(self) -> bool:
        """Whether an unknown noun with an article of its own comes next, to which nothing leads."""
        if self.peek().kind not in ("article", "indefinite"):
            return False
        ahead = 1
        while self.peek(ahead).kind in ("color", "size", "shape", "ordinal", "state", "partword", "number"):
            ahead += 1
        if self.peek(ahead).kind != "unknown" or self.peek(ahead).text in HARMLESS:
            return False
        while self.peek(ahead).kind in ("unknown", "color", "size", "shape"):
            ahead += 1
        return self.peek(ahead).kind not in ("category", "one", "group", "direction", "extreme")

    def _again(self, phrase: NounPhrase, lexeme: Lexeme) -> bool:
        """ "Three ships are tied together, I need the lower ship": one of them."""
        if phrase.plural and lexeme.value.plural is False:
            self._one_of_them(phrase)
            return True
        return False

    def _one_of_them(self, phrase: NounPhrase) -> None:
        """The constraints before the last comma describe all of them, the others the one."""
        if (phrase.plural or (phrase.count or 0) > 1) and not phrase.partitive:
            split = next((at for at in (phrase.context, phrase.at_article) if at is not None), len(phrase.constraints))
            before, after = phrase.constraints[:split], phrase.constraints[split:]
            group = next((c for c in before if isinstance(c, Group)), Group("any"))
            members: tuple[Constraint, ...] = tuple(c for c in before if not isinstance(c, Group))
            count = phrase.count if phrase.count and phrase.count > 1 else group.count
            nested = phrase.in_known_group or group.place or group.members
            if group in before and group.count is None and phrase.count and nested:
                group, members = Group("any"), (*members, group)  # "two yellow planes in the group on the left"
            if count or group in before:
                group = replace(group, count=count, members=(*group.members, *members))
                phrase.constraints = [group, *after]
        phrase.partitive, phrase.all, phrase.count, phrase.plural = True, False, None, False

    def _enumerates(self) -> bool:
        """Whether the words after "one" go on with the others: "the two pools, one by the house and the other ..."."""
        rest = [word.text for word in self.words[self.at :]]
        return "and" in rest and any(
            text in ("other", "another", "one", "the other") for text in rest[rest.index("and") :]
        )

    def _lists_them(self) -> bool:
        """Whether all that are asked for are now listed: "all seven cars, the four by the road and the three ..."."""
        first = self.peek(1) if self.peek().kind in ("article", "indefinite") else self.peek()
        rest = [word.text for word in self.words[self.at :]]
        if self.peek(-1).text == ":":
            listed = any(word.kind == "and" or word.text == "," for word in self.words[self.at :])
            return len(rest) > 2 and listed
        if "and" in rest and first.kind == "both" and self.peek(1).kind != "end":
            return True  # "the two diamonds, both the small and the large one"
        if "and" not in rest or (first.kind != "number" and first.text != "one"):
            return False
        others = rest[rest.index("and") :]
        return first.kind == "number" or any(text in ("one", "other", "another", "other one") for text in others)
