"""Nouns that annotators of a project use for a label and that no lexicon holds: learnt from what they accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dataset_tools.expressions.parser import parse

__all__ = ["LearntNoun", "learnt_nouns"]

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
