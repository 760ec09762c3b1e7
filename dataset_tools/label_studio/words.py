"""Which words an accepted region answers: one rule for export, report and training.

Words belong to regions. A suggestion carries the expression that it was found for, and keeps it when it is accepted,
edited or refined by clicks. What was clicked, boxed or drawn without one gets the task's words only where nothing else
can be meant; what is left is without words, which is said and never guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dataset_tools.categories import CATEGORIES
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Query
from dataset_tools.label_studio.regions import RegionInfo, is_accepted
from dataset_tools.labelled import category_name

__all__ = ["prompt_texts", "words_of"]


def words_of(
    regions: Sequence[RegionInfo],
    results: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    own: Collection[str] = (),
) -> list[str | None]:
    """The expression of every region of one image in one annotation; None for one without words.

    In this order: what was typed for the region itself (a per-region TextArea); the expression that it was suggested
    for, which for the prediction of another model is the task's only text; a text of the task that no region was
    suggested for, if the region is the only one that it can mean, or all are meant ("all the ships", where those that
    the model missed count too). Where the task's data has no text, what was typed in the prompt stands in for it.

    Args:
        regions: the accepted regions.
        results: the annotation's results; texts that were typed are looked for in them.
        texts: the expressions in the task's data.
        own: the project's labels that are no canonical category, as :func:`dataset_tools.labelled.category_name` spells
            them: words of the texts may name them.
    """
    typed = _typed(results)
    found = [typed.get(str(region.id)) or region.expression for region in regions]
    spelled = {_plain(text): text for text in texts}
    found = [None if text is None else spelled.get(_plain(text), text) for text in found]
    if len(texts) == 1 and texts[0] not in found:
        found = [
            texts[0] if text is None and _was_predicted(region) else text
            for region, text in zip(regions, found, strict=True)
        ]
    claimed = {_plain(text) for text in found if text is not None}
    asked = list(texts) or [text for text in prompt_texts(results) if _plain(text) not in claimed][:1]
    queries = {text: parse(text, own) for text in asked}
    for text, query in queries.items():
        if _plain(text) in claimed and not query.is_all:
            continue
        meant = [number for number in _meant(regions, query, alone=len(queries) == 1) if found[number] is None]
        rivals = [other for other in queries.values() if other.category == query.category]
        if not meant or (len(queries) > 1 and len(rivals) > 1):
            continue
        if len(meant) == 1 or query.is_all:
            for number in meant:
                found[number] = text
    return found


def prompt_texts(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts typed for the whole image (the prompt), the newest first."""
    shapes = {result.get("id") for result in results if is_accepted(result)}
    return [
        text
        for result in reversed(results)
        if result.get("type") == "textarea" and result.get("id") not in shapes
        for text in reversed(_lines(result))
    ]


def _typed(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Place id -> the newest text typed for it: a per-region TextArea shares the id of its region."""
    shapes = {result.get("id") for result in results if is_accepted(result)}
    lines = {
        str(result["id"]): _lines(result)
        for result in results
        if result.get("type") == "textarea" and result.get("id") in shapes
    }
    return {identity: texts[-1] for identity, texts in lines.items() if texts}


def _lines(result: Mapping[str, Any]) -> list[str]:
    value = result.get("value")
    text = value.get("text") if isinstance(value, dict) else None
    parts = [text] if isinstance(text, str) else text if isinstance(text, list) else []
    return [part.strip() for part in parts if isinstance(part, str) and part.strip()]


def _meant(regions: Sequence[RegionInfo], query: Query, *, alone: bool) -> list[int]:
    """Numbers of the regions that the words may mean, by their labels.

    Where the task has no other words (``alone``) a single region is meant whatever its label, and a label that is no
    known category ("object") does not speak against it.
    """
    named = [number for number, region in enumerate(regions) if category_name(region.label or "") == query.category]
    if not alone or (named and query.category is not None):
        return named
    if len(regions) == 1:
        return [0]
    return [
        number
        for number, region in enumerate(regions)
        if query.category is None or region.label is None or region.label not in CATEGORIES
    ]


def _was_predicted(region: RegionInfo) -> bool:
    """Whether it is another model's answer to the task: a prediction that carries none of our own words."""
    return region.origin in ("prediction", "prediction-changed") and region.clicks is None


def _plain(text: str) -> str:
    return " ".join(text.split())
