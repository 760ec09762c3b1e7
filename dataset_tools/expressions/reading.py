"""What reading an expression took for granted: words that were guessed, and words that were passed over.

Pre-labels carry it to the annotator and into the dataset, so that a curator can keep only what was read fully.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from dataset_tools.categories import category_named
from dataset_tools.expressions.lexicon import MOST_WORDS
from dataset_tools.expressions.meanings import meanings_of
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Query
from dataset_tools.expressions.spelling import corrected

__all__ = ["WordsRead", "reading_of"]

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class WordsRead:
    """How the words of an expression were read.

    Attributes:
        guessed: words taken for another: slips of the pen, as ``leftmsot: leftmost``; nouns for the large or the
            small ones of a category, of which nothing but the size is looked at, as ``truck: large vehicle``.
        unread: words that mean something and were not understood ("with faded lines"), a head noun that names no
            category among them, and what comes after the longest text that is read. Words that are known to change
            nothing ("typical") are not listed.
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
    slips = (f"{word}: {corrected(word)}" for word in words if corrected(word) != word)
    nouns = query.unknown_words if query.category is None else ()
    rest = (f"everything after word {MOST_WORDS}",) if len(_WORD.findall(expression)) > MOST_WORDS else ()
    return WordsRead(
        tuple(dict.fromkeys((*slips, *_kinds_guessed(query)))), tuple(dict.fromkeys((*query.unread, *nouns, *rest)))
    )


def _kinds_guessed(query: Query) -> Iterator[str]:
    """Nouns of the query, and of what it refers to, that are taken for a category, or a size of one."""
    if query.category is not None and query.hint:
        yield f"{query.noun}: {query.hint} {category_named(query.category).display}"
    elif query.category is not None and len(meanings_of(query.noun)) == 1:
        yield f"{query.noun}: {category_named(query.category).display}"
    for part in query.parts:
        yield from _kinds_guessed(part)
