"""Slips of the pen in the words that the grammar lives on: sides, orders, sizes, colours, prepositions."""

from __future__ import annotations

from functools import cache, lru_cache

from dataset_tools.categories import find_mentions
from dataset_tools.expressions.descriptive_words import SURFACES
from dataset_tools.expressions.vocabulary import TABLE

__all__ = ["corrected"]

_KINDS = (
    "direction",
    "extreme",
    "ordinal",
    "size",
    "color",
    "number",
    "near",
    "nearest",
    "farthest",
    "between",
    "group",
)
_SHORTEST = 5
_MARKED = frozenset(["angle", "angles", "ranks", "batter", "centers", "lefty", "wight", "blank"])
"""Words of their own that are one letter away from one of ours."""
_TYPED = {
    "teh": "the", "hte": "the", "whte": "white", "wite": "white", "gren": "green", "lft": "left", "rigt": "right",
    "rght": "right", "vehical": "vehicle", "vehicals": "vehicles", "vehicel": "vehicle", "feild": "field",
    "wich": "which",
}  # fmt: skip
_NOUNS = (
    "tennis", "storage", "swimming", "airplane", "aeroplane", "airplanes", "aircraft", "baseball", "basketball",
    "vehicle", "vehicles", "harbour", "building", "buildings", "stadium", "roundabout", "helicopter", "football",
    "soccer", "bridge",
)  # fmt: skip
"""Nouns of our own; of shorter ones too many others are a letter away."""


@lru_cache(maxsize=4096)
def corrected(word: str) -> str:
    """``word``, or the known word that it is one letter (or two swapped ones) away from: "leftmsot" -> "leftmost".

    Only words of five letters and more that mean nothing themselves, and only to one with the same first letter.
    """
    if word in _TYPED:
        return _TYPED[word]
    if len(word) < _SHORTEST or not word.isascii() or not word.isalpha():
        return word
    if word in _known() or word in SURFACES or word in _MARKED or find_mentions([word]):
        return word
    close = {
        known
        for shorter in _shortened(word)
        for known in _by_shortened().get(shorter, ())
        if known[0] == word[0] and _one_slip(word, known)
    }
    return close.pop() if len(close) == 1 else word


@cache
def _known() -> frozenset[str]:
    return frozenset(word for phrase in TABLE for word in phrase)


@cache
def _by_shortened() -> dict[str, tuple[str, ...]]:
    """Known word without one of its letters (or whole) -> such words."""
    found: dict[str, tuple[str, ...]] = {}
    for phrase, (kind, _) in TABLE.items():
        for known in phrase if kind in _KINDS else ():
            if len(known) >= _SHORTEST:
                for shorter in _shortened(known):
                    found[shorter] = (*found.get(shorter, ()), known)
    for known in _NOUNS:
        for shorter in _shortened(known):
            found[shorter] = (*found.get(shorter, ()), known)
    return found


def _shortened(word: str) -> set[str]:
    return {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}


def _one_slip(word: str, known: str) -> bool:
    """Whether one letter is missing, too many or wrong, or two neighbours are swapped."""
    if abs(len(word) - len(known)) > 1:
        return False
    if len(word) != len(known):
        longer, shorter = sorted((word, known), key=len, reverse=True)
        return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
    wrong = [i for i, (a, b) in enumerate(zip(word, known, strict=True)) if a != b]
    if len(wrong) == 1:
        return len(word) > _SHORTEST  # "beach" is no "bench"
    return (
        len(wrong) == 2
        and wrong[1] == wrong[0] + 1
        and sorted(word[wrong[0] : wrong[1] + 1]) == sorted(known[wrong[0] : wrong[1] + 1])
    )
