"""Regions of Label Studio annotations: masks of their shapes, and what they say of their origin, read and written."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dataset_tools import masks
from dataset_tools.categories import canonical
from dataset_tools.errors import DatasetError
from dataset_tools.expressions.more_like import more_like
from dataset_tools.expressions.reading import WordsRead, reading_of
from dataset_tools.label_studio.learnt_nouns import Reworded, in_known_words
from dataset_tools.label_studio.shapes import SHAPES, code_of
from dataset_tools.masks import CocoRle, Mask
from dataset_tools.records import Fate, Origin

__all__ = [
    "WORK",
    "Region",
    "RegionInfo",
    "agreement",
    "fate_of",
    "is_accepted",
    "labels_of",
    "new_id",
    "provenance",
    "read_info",
    "read_region",
    "several_labels",
    "words",
]

WORK: Mapping[Origin, int] = {"prediction": 0, "prediction-changed": 1, "manual": 2}
"""How much manual work each origin stands for."""
_META = re.compile(r"^pslg model=(?P<model>\S+) clicks=(?P<clicks>\d+) score=(?P<score>[\d.]+)$")
_EXPRESSION_META = re.compile(r"^expression: (?P<text>.+)$")
_READING_META = re.compile(r"^(?P<what>guessed|unread): (?P<words>.+)$")


@dataclass(frozen=True)
class RegionInfo:
    """What an accepted region says of itself, without its pixels.

    Attributes:
        id: the result's id.
        image: name of the Image tag that it lies on (``to_name``), None if it says none.
        item: number of the image in a tag that shows several (``item_index``), None if it says none.
        control: name of the control that it was made with (``from_name``), None if it says none.
        kind: its ``type``.
        label: the first label, canonical where it is a known category's name; None without a label.
        expression: of ``meta.text`` (``expression: ...``), None if it says none.
        reading: how the server read it, of ``meta.text`` (``guessed: ...``, ``unread: ...``).
        origin: Label Studio's word for how it came about, None if it says none.
        model, clicks, score: from ``meta.text`` (``pslg model=... clicks=... score=...``), else None; the model also
            from the annotation's parent prediction, the score also from the result.
    """

    id: str | None
    image: str | None
    item: int | None
    control: str | None
    kind: str
    label: str | None
    expression: str | None
    origin: Origin | None
    model: str | None
    clicks: int | None
    score: float | None
    reading: WordsRead


@dataclass(frozen=True)
class Region(RegionInfo):
    """One accepted region.

    Attributes:
        rle: its mask as COCO's run-length code, at the image's own size; pixels are made when they are asked for.
    """

    rle: CocoRle

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        height, width = self.rle["size"]
        return height, width

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return masks.area_of(self.rle, *self.size)

    @cached_property
    def mask(self) -> Mask:
        """bool[H, W]."""
        return masks.from_coco(self.rle, *self.size)


def is_accepted(result: Mapping[str, Any]) -> bool:
    """Whether a result is an object: smart clicks, texts and choices are not."""
    return isinstance(result, dict) and isinstance(result.get("type"), str) and result["type"] in SHAPES


def read_region(result: Mapping[str, Any], annotation: Mapping[str, Any]) -> Region:
    """The region of an accepted result.

    Raises:
        DatasetError: it has no size, was drawn on a rotated view, or its coordinates are unusable.
        MaskError: its brush stream is damaged.
    """
    value, kind = result.get("value"), result["type"]
    if not isinstance(value, dict):
        raise DatasetError(f"region {result.get('id')} has no value with its shape but {value!r:.60}")
    try:
        height, width = int(result["original_height"]), int(result["original_width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DatasetError(f"region {result.get('id')} has no original_width and original_height") from None
    if result.get("image_rotation"):
        raise DatasetError(f"region {result.get('id')} was drawn on the image rotated by {result['image_rotation']}")
    return Region(**vars(read_info(result, annotation)), rle=code_of(kind, value, height, width))


def read_info(result: Mapping[str, Any], annotation: Mapping[str, Any]) -> RegionInfo:
    """What an accepted result says of itself; its shape is not looked at."""
    labels = labels_of(result)
    meta = _meta(result)
    origin = result.get("origin")
    predicted = origin in ("prediction", "prediction-changed")
    parent = annotation.get("prediction") if predicted else None
    score = meta.get("score", result.get("score"))
    return RegionInfo(
        id=result.get("id"),
        image=result["to_name"] if isinstance(result.get("to_name"), str) else None,
        item=item if isinstance(item := result.get("item_index"), int) else None,
        control=result["from_name"] if isinstance(result.get("from_name"), str) else None,
        kind=result["type"],
        label=(canonical(labels[0]) or labels[0]) if labels else None,
        expression=meta.get("expression"),
        origin=next((known for known in WORK if known == origin), None),
        model=meta.get("model") or (parent.get("model_version") if isinstance(parent, dict) else None),
        clicks=int(meta["clicks"]) if "clicks" in meta else None,
        score=_number(score),
        reading=WordsRead(*(tuple(filter(None, meta.get(name, "").split("; "))) for name in ("guessed", "unread"))),
    )


def labels_of(result: Mapping[str, Any]) -> list[str]:
    """The labels of an accepted result, in its order; a lone text is one label, and "more like this" is none."""
    value = result.get("value")
    labels = value.get(result["type"]) if isinstance(value, dict) else None
    parts = [labels] if isinstance(labels, str) else labels if isinstance(labels, list) else []
    texts = [str(label) for label in parts if isinstance(label, str | int | float) and str(label).strip()]
    return [text for text in texts if "more" not in text.casefold() or more_like(text) is None]


def several_labels(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The labels of accepted results that have more than one, as "ship, harbor", each combination once."""
    return sorted({", ".join(labels) for r in results if is_accepted(r) and len(labels := labels_of(r)) > 1})


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None
    return number if number is not None and np.isfinite(number) else None


def new_id() -> str:
    """A fresh region id. It is the region's identity: the editor replaces a region by another of the same id."""
    return secrets.token_hex(5)


def provenance(model_version: str, clicks: int, score: float) -> str:
    """Where a region comes from, for its ``meta.text``; kept by Label Studio through accept, submit and export."""
    return f"pslg model={model_version} clicks={clicks} score={score:.3f}"


def words(expression: str, own: Collection[str] = (), nouns: Mapping[str, str] | None = None) -> list[str]:
    """The expression that a region answers and what of it was guessed or left unread, for its ``meta.text`` beside
    :func:`provenance`; read as ``expression`` and ``reading``. ``own``: see ``expressions.reading.reading_of``;
    ``nouns``: see ``learnt_nouns.in_known_words``.
    """
    text = " ".join(expression.split())
    asked = in_known_words(text, own, nouns) if nouns else Reworded(text)
    reading = reading_of(asked.text, frozenset(own))
    read = (("guessed", (*reading.guessed, *asked.guessed)), ("unread", reading.unread))
    return [f"expression: {text}", *(f"{name}: {'; '.join(found)}" for name, found in read if found)]


def fate_of(region: RegionInfo, texts: Collection[str] = ()) -> Fate:
    """What an accepted region cost: the one definition of "accepted unchanged", for report, statistics and training.

    ``unchanged``: its mask came from the pre-label of its words and was not clicked, edited or redrawn; ``clicked``:
    made with the model by clicks, a box or a typed text; ``changed``: a mask of the model, edited by hand; ``manual``:
    drawn by hand.

    Args:
        region: the region.
        texts: the expressions in its task's data: what was found for other words was typed.
    """
    if region.origin == "prediction-changed":
        return "changed"
    if region.clicks is None:  # nothing of ours: another model's prediction, or no model's
        return "unchanged" if region.origin == "prediction" else "manual"
    asked = {" ".join(text.split()) for text in texts}
    typed = region.expression is not None and region.expression not in asked
    # Label Studio calls a suggestion that was accepted "manual" or "prediction".
    return "unchanged" if region.origin == "prediction" and not region.clicks and not typed else "clicked"


def _meta(result: Mapping[str, Any]) -> dict[str, str]:
    """``model``, ``clicks``, ``score`` and ``expression`` from the region's ``meta.text``."""
    meta = result.get("meta")
    text = meta.get("text") if isinstance(meta, dict) else None
    found: dict[str, str] = {}
    parts = [text] if isinstance(text, str) else text if isinstance(text, list) else []
    # Whoever adds a note in the editor gets one text of several lines back.
    for line in "\n".join(map(str, parts)).splitlines():
        if match := _READING_META.match(line.strip()):
            found[match["what"]] = match["words"]
        for pattern in (_META, _EXPRESSION_META):
            match = pattern.match(line.strip())
            if match:
                found.update({"expression": match["text"]} if pattern is _EXPRESSION_META else match.groupdict())
    return found


def agreement(first: Sequence[Region], second: Sequence[Region]) -> float:
    """Mean IoU over the labels that either annotation has, each label as one mask; 1 if both are empty."""
    labels = {region.label for region in (*first, *second)}
    if not labels:
        return 1.0
    total = 0.0
    for label in labels:
        codes = [[region.rle for region in regions if region.label == label] for regions in (first, second)]
        if codes[0] and codes[1] and codes[0][0]["size"] == codes[1][0]["size"]:
            total += masks.iou_of(*(masks.union_of(some) for some in codes))
    return total / len(labels)
