"""The words of referring expressions: a tokenizer that turns a text into lexemes for the parser.

A lexeme is a word or phrase with a grammatical kind. Everything the parser understands is listed in
:mod:`dataset_tools.expressions.vocabulary`; a word that is in no table and names no category has the kind ``unknown``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from dataset_tools.categories import CATEGORIES, Mention, category_name, find_mentions
from dataset_tools.expressions.meanings import ANYWHERE, MEANINGS, meanings_of
from dataset_tools.expressions.spelling import corrected
from dataset_tools.expressions.vocabulary import TABLE

__all__ = ["EMPTY_NOUNS", "MOST_WORDS", "Lexeme", "lexemes", "own_nouns", "says_nothing"]

EMPTY_NOUNS = frozenset(
    {"object", "target", "region", "mask", "foreground", "instance", "thing", "item", "referent", "referred object"}
)
"""Nouns that name no category: a labeling config whose only label is one of them labels whatever the expression names,
and what was labelled so is of the category that its expression names."""


def says_nothing(label: str) -> bool:
    """Whether a label (case, ``_`` and ``-`` do not matter) names no category but is one of ``EMPTY_NOUNS``."""
    return " ".join(re.split(r"[\s_-]+", label.casefold().strip())) in EMPTY_NOUNS


def own_nouns(labels: Iterable[str]) -> frozenset[str]:
    """What ``parse`` takes as a project's own nouns: its labels that are no canonical category and say something,
    "Solar_Panel" as "solar panel".
    """
    names = map(category_name, labels)
    return frozenset(name for name in names if name not in CATEGORIES and not says_nothing(name))


@dataclass(frozen=True)
class Lexeme:
    """A word or phrase.

    Attributes:
        kind: grammatical kind; the keys of the vocabulary's tables.
        text: as written, lower case.
        value: what the kind needs (a category, a direction, a number, ...).
    """

    kind: str
    text: str
    value: Any = None


_LONGEST = max(map(len, TABLE))
_WORD = re.compile(r"'s\b|[^\W_]+|[,.;:!?()\n]")
_COMPASS = re.compile(r"\b([NnSs])\.?[ -]?([EeWw])\.(?=\W|$)|\b([NS])[ -]?([EW])\b")
_COMPASS_POINT = re.compile(r"(?<![\w.'])([NSEW])(?![\w'.])|(?<![\w.'])([NSEW])\.(?=\s+[a-z])")
_POINTS = {"N": "north", "S": "south", "E": "east", "W": "west"}
_SHORT = (
    (re.compile(r"\bw/o\b", re.IGNORECASE), "without"),
    (re.compile(r"\bw/", re.IGNORECASE), "with "),
    (re.compile(r"\s[&+]\s"), " and "),
    (re.compile(r"(?<=\w)-ish\b", re.IGNORECASE), ""),
    (re.compile(r"\b([A-Za-z]{1,3})-(\d{1,3})\b"), r"\1\2"),  # "C-130"
)
"""What people abbreviate."""
_CLITIC = re.compile(r"\b(it|that|there|he|she|what|here|who|which|one|let)'s\b")
MOST_WORDS = 400
"""Words of a text that are read; the others are not."""
_MAX_NUMBER = 999


def lexemes(expression: str, own: Collection[str] = ()) -> list[Lexeme]:
    """The lexemes of a text, longest phrase first; punctuation becomes ``break``. Words after the 400th are ignored.

    ``own`` as for :func:`dataset_tools.categories.find_mentions`.
    """
    words = _words(expression)
    mentions = {mention.start: mention for mention in find_mentions(words, own)}
    found: list[Lexeme] = []
    start = 0
    while start < len(words):
        mention: Mention | None = mentions.get(start)
        if words[start] == "'s" and found and found[-1].kind == "frame":  # "the image's left edge"
            start += 1
            continue
        stop, entry = _longest_phrase(words, start)
        if words[start] == "stack" and (
            words[start + 1 : start + 2] == ["of"] or any(lexeme.kind == "category" for lexeme in found)
        ):
            mention = None  # no chimney
        if (
            words[start] == "right"
            and entry
            and entry[0] in ("near", "nearest", "on", "over", "in")
            and _is_side(words, start)
        ):
            stop, entry = start + 1, TABLE[("right",)]  # "on the right near the dock"
        if (
            words[start] in ("of", "among", "from")
            and words[start + 1 : start + 2] in (["those"], ["these"], ["them"])
            and words[start + 2 : start + 3] in ([","], [":"], [";"], ["the"])
        ):
            found.append(Lexeme("filler", " ".join(words[start : start + 2])))  # "of those, the left one"
            start += 2
            continue
        if words[start:stop] == ["a", "little"] and not _compares(words, stop):
            stop, entry = start + 1, TABLE[("a",)]  # "a little boat", not "a little further left"
        court = _doubtful_court(words, start)
        if court and not mention:
            text, name = court
            found.append(Lexeme("category", text, Mention(0, 1, name, text.endswith("s"))))
            start += text.count(" ") + 1
            continue
        if mention and mention.stop >= stop:
            text = " ".join(words[start : mention.stop])
            found.append(Lexeme("category", text, mention))
            start = mention.stop
        elif entry:
            found.append(Lexeme(entry[0], " ".join(words[start:stop]), entry[1]))
            start = stop
        else:
            found.append(_single(words[start], own))
            start += 1
    return found


def _doubtful_court(words: list[str], start: int) -> tuple[str, str] | None:
    """ "hoop court": (the words, the likeliest category) of a name of several words that ends in "court"."""
    for length in (3, 2):
        text = " ".join(words[start : start + length])
        known = text.count(" ") == length - 1 and text.removesuffix("s") in MEANINGS
        if known and text.split()[-1].removesuffix("s") in ANYWHERE:
            return text, meanings_of(text)[0][0]
    return None


def _words(expression: str) -> list[str]:
    """Lower case words and punctuation; abbreviated points of the compass written out ("N", "S.E.", "nw")."""
    text = unicodedata.normalize("NFKC", expression).replace("\u2019", "'")
    for pattern, written in _SHORT:
        text = pattern.sub(written, text)
    if not text.isupper():
        text = _COMPASS.sub(lambda m: "".join(_POINTS[p.upper()] for p in m.groups() if p), text)
        text = _COMPASS_POINT.sub(lambda m: _POINTS[m[1] or m[2]], text)
    text = _CLITIC.sub(r"\1 is", text.lower())
    return [corrected(word) for word in _WORD.findall(text)[:MOST_WORDS]]


def _longest_phrase(words: list[str], start: int) -> tuple[int, tuple[str, Any] | None]:
    for length in range(min(_LONGEST, len(words) - start), 0, -1):
        entry = TABLE.get(tuple(words[start : start + length]))
        if entry:
            return start + length, entry
    return start, None


def _is_side(words: list[str], start: int) -> bool:
    """Whether the "right" at ``start`` is a side: "on the right", "far right"."""
    return start > 0 and words[start - 1] in ("the", "far", "lower", "upper", "top", "bottom", "middle", "center")


def _compares(words: list[str], start: int) -> bool:
    """Whether a place, a distance or a comparison comes next."""
    _, entry = _longest_phrase(words, start)
    if entry is None:
        return False
    kind, value = entry
    return kind in (
        "direction",
        "extreme",
        "relative",
        "over",
        "far",
        "far_from",
        "near",
        "nearest",
        "most",
        "to",
        "on",
        "state",
    ) or (kind == "size" and value[2] == "comparative")


def _single(word: str, own: Collection[str]) -> Lexeme:
    if not word[0].isalnum():
        return Lexeme("break", word)
    if word.isdecimal() and word.isascii():
        return Lexeme("number", word, min(int(word[:4]), _MAX_NUMBER))
    kind = next(
        (name for name, _ in meanings_of(word) if name in CATEGORIES or name in own)
        if word in ANYWHERE or word.removesuffix("s") in ANYWHERE
        else iter(()),
        None,
    )
    if kind is not None:
        return Lexeme("category", word, Mention(0, 1, kind, word.endswith("s")))
    return Lexeme("unknown", word)
