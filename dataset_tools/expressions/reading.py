"""What reading an expression took for granted: words that were guessed, and words that were passed over.

Pre-labels carry it to the annotator and into the dataset, so that a curator can keep only what was read fully.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from dataset_tools.categories import category_named
from dataset_tools.expressions.meanings import meanings_of
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.spelling import corrected

__all__ = ["WordsRead", "reading_of"]

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class WordsRead:
    """How the words of an expression were read.

    Attributes:
        guessed: words taken for another, as ``leftmsot: leftmost``.
        unread: words that mean something and were not understood ("with faded lines"), a head noun that names no
            category among them.
    """

    guessed: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def is_full(self) -> bool:
        """Nothing was guessed or passed over."""
        return not (self.guessed or self.unread)


@lru_cache(maxsize=4096)
def reading_of(expression: str, own: frozenset[str] = frozenset()) -> WordsRead:
    """How ``expression`` is read; ``own``: the project's labels that are no canonical category."""
    query = parse(expression, own)
    words = dict.fromkeys(_WORD.findall(expression.lower()))
    guessed = tuple(f"{word}: {corrected(word)}" for word in words if corrected(word) != word)
    meant = meanings_of(query.noun)
    if query.category is not None and len(meant) == 1:
        guessed = (*guessed, f"{query.noun}: {category_named(query.category).display}")
    nouns = query.unknown_words if query.category is None else ()
    return WordsRead(guessed, tuple(dict.fromkeys((*query.unread, *nouns))))
