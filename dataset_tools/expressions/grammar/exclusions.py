"""Reads what is left out: "without boats", "not the one on the runway", "except the largest"."""

from __future__ import annotations

from dataclasses import replace

from dataset_tools.expressions.grammar.belongings import Belongings
from dataset_tools.expressions.grammar.noun_phrase import NounPhrase
from dataset_tools.expressions.query import Among, Relation, State

__all__ = ["Exclusions"]

_BEFORE_NOR = ("article", "direction", "extreme", "most", "far", "size", "color", "ordinal", "shape", "one", "state")


class Exclusions(Belongings):
    """What the object has not, and which objects are not meant."""

    def _without(self, phrase: NounPhrase, depth: int) -> None:
        """ "without boats": others that are not on or at it; "without the short ones": not these."""
        if self.exclusion(phrase, depth, same_only=True):
            return
        if not self.starts_noun(or_unknown=True):
            self._unnamed_part(depth)
            return
        target = self.target(depth)
        if target.category is None:
            before = len(phrase.constraints)
            self._part(phrase, target)
            phrase.constraints[before:] = [replace(c, negated=True) for c in phrase.constraints[before:]]
        elif target.category == "ship" and phrase.category == "harbor":
            phrase.add(State("empty"))
        else:
            phrase.add(Relation("holds", (target,), negated=True))

    def exclusion(self, phrase: NounPhrase, depth: int, *, same_only: bool = False) -> bool:
        """Past "the one on the runway" after "not" or "except": none of these; False if no such thing comes next.

        ``same_only``: only if it is of the phrase's own kind.
        """
        start = self.at
        if self.peek().kind == "one" and self.peek(1).kind == "of":  # "not one of the three in a row"
            self.at += 2
        if self.peek().kind not in ("article", "indefinite", "all", "both") or not self._is_noun_phrase(1):
            self.at = start
            return False
        target = self.target(depth)
        other = target.category is not None and target.category != phrase.category and phrase.category is not None
        if other and same_only:
            self.at = start
            return False
        if not other and target.constraints:
            phrase.constraints.append(Among(replace(target, category=None), negated=True))
            if phrase.root:
                self.antecedent = replace(target, noun=target.noun or "one")
        return True

    def neither(self, phrase: NounPhrase, depth: int) -> bool:
        """Past "(neither) the left nor the right plane": none of both; False, and nothing taken, if no "nor" comes."""
        start = self.at
        first = NounPhrase(root=False)
        while self.peek().kind in _BEFORE_NOR:
            before = self.at
            self.modifier(first, depth)
            self.at = max(self.at, before + 1)
        if self.peek().text not in ("nor", "or"):
            self.at = start
            return False
        self.at += 1
        second = self.target(depth)
        for one in (first.query(), second):
            if one.constraints:
                phrase.constraints.append(Among(replace(one, category=None), negated=True))
        self.antecedent = second
        return True

    def _is_noun_phrase(self, ahead: int) -> bool:
        kinds = (
            "category",
            "one",
            "extreme",
            "size",
            "ordinal",
            "color",
            "number",
            "direction",
            "most",
            "nearest",
            "shape",
        )
        return self.peek(ahead).kind in kinds
