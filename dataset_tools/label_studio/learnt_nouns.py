"""Nouns that annotators of a project use for a label and that no lexicon holds: learnt from what they accepted.

Whoever reads a project's expressions reads them :func:`in_known_words`: the server, training and export.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dataset_tools.categories import category_named, plural_of
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Query

__all__ = ["LearntNoun", "Reworded", "in_known_words", "learnt_nouns", "meanings"]

LEAST_TIMES = 3
"""So often a noun must have been accepted for one label."""
LEAST_SHARE = 0.8
"""And for so large a share of all times that it was used."""
_LONGEST = 3


@dataclass(frozen=True)
class LearntNoun:
    """A noun of a project.

    Attributes:
        noun: lower case, as written.
        category: what it was accepted for.
        times: how often.
        used: how often it was accepted for anything.
    """

    noun: str
    category: str
    times: int
    used: int

    @property
    def certainty(self) -> float:
        """Share of its uses, in [0, 1], after one more use for something else."""
        return self.times / (self.used + 1)


def learnt_nouns(accepted: Iterable[tuple[str, str]], own: Collection[str] = ()) -> dict[str, LearntNoun]:
    """Noun -> what it means in a project, for nouns that the lexicon does not know.

    Args:
        accepted: (expression, category of the object that was accepted under it), once for each expression and object.
        own: the project's own categories, as for ``parse``.

    A noun is learnt when it was accepted three times and more for one category, and hardly ever for another.
    """
    uses: dict[str, Counter[str]] = {}
    for expression, category in accepted:
        query = parse(expression, own)
        if query.category is None and query.noun and len(query.noun.split()) <= _LONGEST:
            uses.setdefault(query.noun, Counter())[category] += 1
    found = {}
    for noun, counts in sorted(uses.items()):
        category, times = counts.most_common(1)[0]
        used = counts.total()
        if times >= LEAST_TIMES and times >= LEAST_SHARE * used:
            found[noun] = LearntNoun(noun, category, times, used)
    return found


def meanings(nouns: Mapping[str, LearntNoun]) -> dict[str, str]:
    """Noun -> category."""
    return {noun: found.category for noun, found in nouns.items()}


class Reworded(NamedTuple):
    """An expression in words that the lexicon, or the project's labels, hold.

    Attributes:
        text: the expression; as it was where no learnt noun is in it.
        guessed: what was replaced, as ``flattop: ship``.
    """

    text: str
    guessed: tuple[str, ...] = ()


def in_known_words(expression: str, own: Collection[str], nouns: Mapping[str, str]) -> Reworded:
    """``expression`` with the nouns that a project's annotators use in place of a known one.

    Args:
        expression: as written.
        own: the project's own categories, as for ``parse``.
        nouns: learnt noun -> category (:func:`meanings`). They are replaced only where they are the noun of what is
            asked for or referred to: the lexicon goes first.
    """
    if not nouns:
        return Reworded(expression)
    text, guessed = expression, []
    for noun in dict.fromkeys(_unknown(parse(expression, own))):
        meant, several = nouns.get(noun), False
        if meant is None:
            meant, several = next((nouns[n] for n in nouns if plural_of(n) == noun), None), True
        if meant is None:
            continue
        shown = category_named(meant)
        pattern = r"[\W_]+".join(map(re.escape, noun.split()))
        changed = re.sub(rf"(?<!\w){pattern}(?!\w)", shown.plural if several else shown.display, text, flags=re.I)
        if changed != text:
            text = changed
            guessed.append(f"{noun}: {shown.display}")
    return Reworded(text, tuple(guessed))


def _unknown(query: Query) -> Iterator[str]:
    """The nouns of no category, of the query and of what it refers to."""
    if query.category is None and query.noun:
        yield query.noun
    for part in query.parts:
        yield from _unknown(part)
