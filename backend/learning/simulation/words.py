"""Categories under words that no lexicon holds, as those of a project that no one has trained for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from dataset_tools.categories import CATEGORIES, canonical, category_named
from dataset_tools.errors import ConfigError
from dataset_tools.labelled import LabelledExpression, LabelledImage

__all__ = ["read_words", "renamed"]


def read_words(text: str) -> dict[str, str]:
    """Canonical category -> the word for it, of a text such as ``swimmingpool=quibble,helicopter=zorbo``.

    Raises:
        ConfigError: it is no such list, a category is not known, or a word is one of the lexicon's or stands twice.
    """
    words: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        category, _, word = map(str.strip, part.partition("="))
        name = canonical(category)
        if name is None or not word:
            raise ConfigError(f"--words has {part!r}: write CATEGORY=WORD; categories: {', '.join(CATEGORIES)}")
        if (known := canonical(word)) is not None:
            raise ConfigError(f"--words calls {category} {word!r}, which is a word for {known}: take an invented one")
        if word in words.values() or name in words:
            raise ConfigError(f"--words has {category}={word}: each category and each word may stand there once")
        words[name] = word
    return words


def renamed(image: LabelledImage, words: Mapping[str, str]) -> LabelledImage:
    """``image`` with objects and expressions of the categories ``words`` under these words; expressions that call one
    of them something else yet are left out.
    """
    objects = tuple(
        replace(item, label=words[item.category]) if item.category in words else item for item in image.objects
    )
    complete = frozenset(words.get(name, name) for name in image.complete)
    expressions = []
    for one in image.expressions:
        found = _reworded(one, image, words)
        if found is not None:
            expressions.append(found)
    return replace(image, objects=objects, expressions=tuple(expressions), complete=complete)


def _reworded(one: LabelledExpression, image: LabelledImage, words: Mapping[str, str]) -> LabelledExpression | None:
    text = one.text
    for category, word in words.items():
        names = category_named(category)
        for form, new in ((names.plural, category_named(word).plural), (names.display, word)):
            text = re.sub(rf"\b{re.escape(form)}\b", new, text, flags=re.IGNORECASE)
    asked = image.objects[one.objects[0]].category if one.objects else canonical(one.label or "") or ""
    if asked in words and words[asked] not in text:
        return None
    return replace(one, text=text, label=words.get(asked, one.label))
