"""What an annotator types or clicks to get more like an object that is outlined already: no words for an object."""

from __future__ import annotations

import re

__all__ = ["LABEL", "more_like"]

LABEL = "more like this"
"""The label of shipped labeling configs that a region is clicked with. It is no object's, wherever it stands."""

_MORE = re.compile(
    r"(?:(?:find|show|give|get)\s+(?:me\s+)?)?(?:all\s+|any\s+)?more\s+(?:objects?\s+)?(?:like|of)\s+"
    r"(?:this|these|that|those|it|them)(?:\s+(?:one|ones|kind|sort))?(?:\s+(?P<noun>[^.!?]*[^\s.!?]))?\s*[.!?]*",
    re.IGNORECASE,
)


def more_like(text: str) -> str | None:
    """The noun of a text such as "more like this" or "find more of these solar panels", lower case; "" if it has none.

    None for a text that asks for something else.
    """
    match = _MORE.fullmatch(" ".join(re.split(r"[\s_]+", text.strip())))
    return None if match is None else (match["noun"] or "").lower()
