"""Regions of Label Studio annotations as masks: brush, polygon, rectangle; and what they say of their origin."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dataset_tools import brush_rle, metrics
from dataset_tools.categories import canonical
from dataset_tools.errors import DatasetError
from dataset_tools.masks import Mask
from dataset_tools.records import Origin

__all__ = ["WORK", "Region", "RegionInfo", "agreement", "is_accepted", "read_info", "read_region"]

WORK: Mapping[str, int] = {"prediction": 0, "prediction-changed": 1, "manual": 2}
"""How much manual work each origin stands for."""
_SHAPES = ("brushlabels", "polygonlabels", "rectanglelabels")
_META = re.compile(r"^pslg model=(?P<model>\S+) clicks=(?P<clicks>\d+) score=(?P<score>[\d.]+)$")
_EXPRESSION_META = re.compile(r"^expression: (?P<text>.+)$")


@dataclass(frozen=True)
class RegionInfo:
    """What an accepted region says of itself, without its pixels.

    Attributes:
        id: the result's id.
        label: the first label, canonical where it is a known category's name; None without a label.
        expression: of ``meta.text`` (``expression: ...``), None if it says none.
        origin: Label Studio's word for how it came about, None if it says none.
        model, clicks, score: from ``meta.text`` (``pslg model=... clicks=... score=...``), else None; the model also
            from the annotation's parent prediction, the score also from the result.
    """

    id: str | None
    label: str | None
    expression: str | None
    origin: Origin | None
    model: str | None
    clicks: int | None
    score: float | None


@dataclass(frozen=True)
class Region(RegionInfo):
    """One accepted region.

    Attributes:
        mask: bool[H, W] at the image's own size.
    """

    mask: Mask


def is_accepted(result: Mapping[str, Any]) -> bool:
    """Whether a result is an object: smart clicks, texts and choices are not."""
    return result.get("type") in _SHAPES


def read_region(result: Mapping[str, Any], annotation: Mapping[str, Any]) -> Region:
    """The region of an accepted result.

    Raises:
        DatasetError: it has no size, was drawn on a rotated view, or its coordinates are unusable.
        MaskError: its brush stream is damaged.
    """
    value, kind = result.get("value") or {}, result["type"]
    try:
        height, width = int(result["original_height"]), int(result["original_width"])
    except (KeyError, TypeError, ValueError):
        raise DatasetError(f"region {result.get('id')} has no original_width and original_height") from None
    if result.get("image_rotation"):
        raise DatasetError(f"region {result.get('id')} was drawn on the image rotated by {result['image_rotation']}")
    return Region(**vars(read_info(result, annotation)), mask=_mask(value, kind, height, width))


def read_info(result: Mapping[str, Any], annotation: Mapping[str, Any]) -> RegionInfo:
    """What an accepted result says of itself; its shape is not looked at."""
    labels = (result.get("value") or {}).get(result["type"]) or []
    meta = _meta(result)
    origin = result.get("origin")
    predicted = origin in ("prediction", "prediction-changed")
    parent = annotation.get("prediction") if predicted else None
    score = meta.get("score", result.get("score"))
    return RegionInfo(
        id=result.get("id"),
        label=(canonical(str(labels[0])) or str(labels[0])) if labels else None,
        expression=meta.get("expression"),
        origin=origin if origin in WORK else None,
        model=meta.get("model") or (parent.get("model_version") if isinstance(parent, dict) else None),
        clicks=int(meta["clicks"]) if "clicks" in meta else None,
        score=float(score) if isinstance(score, int | float | str) else None,
    )


def _mask(value: Mapping[str, Any], kind: str, height: int, width: int) -> Mask:
    if kind == "brushlabels":
        if not isinstance(value.get("rle"), list):
            raise DatasetError("a brush region has no 'rle'; export with masks (JSON), not as a summary")
        return brush_rle.decode(value["rle"], height, width)
    scale = np.array((width, height)) / 100
    try:
        if kind == "polygonlabels":
            corners = np.asarray(value["points"], np.float64) * scale
        else:
            x, y, w, h = (float(value[key]) for key in ("x", "y", "width", "height"))
            turn = np.radians(float(value.get("rotation") or 0))
            # Label Studio turns a rectangle about its upper left corner, in pixels.
            rotation = np.array(((np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))))
            box = np.array(((0, 0), (w, 0), (w, h), (0, h))) * scale
            corners = box @ rotation + np.array((x, y)) * scale
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"a {kind} region has unusable coordinates: {error!r}") from error
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3 or not np.isfinite(corners).all():
        raise DatasetError(f"a {kind} region needs at least three points x, y; it has the shape {corners.shape}")
    # A pixel belongs to the region if its centre does.
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.rint((corners - 0.5) * 256).astype(np.int64).astype(np.int32)], 1, cv2.LINE_8, 8)
    return canvas.astype(bool)


def _meta(result: Mapping[str, Any]) -> dict[str, str]:
    """``model``, ``clicks``, ``score`` and ``expression`` from the region's ``meta.text``."""
    text = (result.get("meta") or {}).get("text") or []
    found: dict[str, str] = {}
    for line in [text] if isinstance(text, str) else text:
        for pattern in (_META, _EXPRESSION_META):
            match = pattern.match(str(line).strip())
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
        masks = [[region.mask for region in regions if region.label == label] for regions in (first, second)]
        if masks[0] and masks[1] and masks[0][0].shape == masks[1][0].shape:
            total += metrics.iou(np.logical_or.reduce(masks[0]), np.logical_or.reduce(masks[1]))
    return total / len(labels)
