"""What it costs to click an object: NoC, the number of clicks until a mask's IoU reaches a threshold.

The next click lies in the deepest point of the largest error region, the first one without a pre-label therefore in the
object's deepest point. Masks are those that the server answers with for the same clicks: by the same ``replay``, and
without specks and pin-holes, of the sizes that ``Settings`` has when nobody sets them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from backend.evaluation.next_click import next_click
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.segmentation.replay import ReplayCache, refines, replay
from backend.pipeline.types import Box, Embedding, Image, Mask, Point, Prompts, hash_image
from backend.settings import Settings
from dataset_tools.labelled import LabelledImage, LabelledObject
from dataset_tools.metrics import iou

__all__ = ["click_ious", "clicks_to", "corrected", "evaluate_clicks", "summarize_clicks"]

SPECK_AREA: int = Settings.model_fields["speck_area"].default
HOLE_AREA: int = Settings.model_fields["hole_area"].default


def evaluate_clicks(
    segmenter: Segmenter,
    targets: Iterable[tuple[LabelledImage, LabelledObject]],
    read_image: Callable[[Path], Image],
    thresholds: Sequence[float],
    cap: int,
) -> dict[str, Any]:
    """NoC over objects with their images, those of one image in succession; objects without pixels are left out.

    Returns:
        What ``summarize_clicks`` returns, for all objects at the top and under ``total``, and ``by_category``;
        ``seconds`` per object.
    """
    started = time.perf_counter()
    sequences: dict[str, list[list[float]]] = {}
    path: Path | None = None
    for labelled, target in targets:
        if path != labelled.path:
            path, image = labelled.path, read_image(labelled.path)
        mask = target.mask()
        if mask.any():
            ious = click_ious(segmenter, image, mask, cap, enough=max(thresholds))
            sequences.setdefault(target.category, []).append(ious)
    every = [ious for part in sequences.values() for ious in part]
    total = summarize_clicks(every, thresholds, cap)
    return {
        **total,
        "total": total,
        "by_category": {name: summarize_clicks(part, thresholds, cap) for name, part in sorted(sequences.items())},
        "seconds": (time.perf_counter() - started) / max(1, len(every)),
    }


def click_ious(segmenter: Segmenter, image: Image, target: Mask, cap: int = 20, enough: float = 1.0) -> list[float]:
    """IoU after each corrective click.

    Args:
        segmenter: the model.
        image: uint8[H, W, 3] RGB.
        target: bool[H, W], not empty.
        cap: most clicks.
        enough: stop when this IoU is reached.

    Returns:
        At least one and at most ``cap`` values; fewer than ``cap`` if ``enough`` was reached.
    """
    embed = cache(partial(segmenter.embed, image, key=hash_image(image)))
    ious: list[float] = []
    for mask in corrected(segmenter, embed, target, cap=cap):
        ious.append(iou(mask, target))
        if ious[-1] >= enough:
            break
    return ious


def clicks_to(
    segmenter: Segmenter,
    embed: Callable[[Box], Embedding],
    target: Mask,
    start: Mask | None,
    *,
    enough: float,
    cap: int,
) -> int:
    """Corrective clicks until the mask's IoU with ``target`` is at least ``enough``; ``cap`` if it never is.

    Args:
        segmenter: answers the clicks.
        embed: features of a window of the image.
        target: bool[H, W], not empty.
        start: the pre-label bool[H, W] as the editor shows it; None or empty: there is none.
        enough: IoU in (0, 1].
        cap: most clicks.
    """
    if start is not None and iou(start, target) >= enough:
        return 0
    for count, mask in enumerate(corrected(segmenter, embed, target, start, cap=cap), 1):
        if iou(mask, target) >= enough:
            return count
    return cap


def corrected(
    segmenter: Segmenter,
    embed: Callable[[Box], Embedding],
    target: Mask,
    start: Mask | None = None,
    *,
    cap: int,
) -> Iterator[Mask]:
    """The mask bool[H, W] that the editor shows after each corrective click, until it is the target.

    A pre-label is refined as the server refines a region. A click beside it that outlines something else begins a new
    object, as it does there, and the pre-label is out.

    Args:
        segmenter: answers the clicks.
        embed: features of a window of the image.
        target: bool[H, W], not empty.
        start: the mask before the first click; None or empty: there is none.
        cap: most clicks.
    """
    size = (target.shape[0], target.shape[1])
    region = start if start is not None and start.any() else None
    shown = np.zeros_like(target) if region is None else region
    prompts = Prompts()
    kept = ReplayCache().of()
    while len(prompts.points) < cap and (click := next_click(shown, target)) is not None:
        point = np.array([[click.x, click.y]], np.float32)
        labels = np.append(prompts.point_labels, int(click.positive))
        prompts = Prompts(np.concatenate([prompts.points, point]), labels)
        if len(labels) == 1 and region is not None and not refines(segmenter, embed, size, prompts, region):
            region = None
        prediction = replay(segmenter, embed, size, prompts, region, kept)
        positive = [Point(float(x), float(y)) for x, y in prompts.points[labels == 1]]
        shown = clean_mask(prediction.mask, SPECK_AREA, HOLE_AREA, positive, only_clicked=region is None)
        yield shown


def summarize_clicks(
    sequences: Sequence[Sequence[float]], thresholds: Sequence[float] = (0.80, 0.85), cap: int = 20
) -> dict[str, Any]:
    """Means over objects of the number of clicks until each threshold.

    Args:
        sequences: IoU after each click, one sequence per object (``click_ious`` with ``enough`` at or above the largest
            threshold).
        thresholds: IoU to reach.
        cap: clicks counted for an object that never reaches a threshold.

    Returns:
        ``NoC@<threshold>``, ``failed@<threshold>`` (objects that never reach it), ``IoU@<k>`` after the first clicks,
        ``n``.
    """
    summary: dict[str, Any] = {}
    for threshold in thresholds:
        counts = [next((k + 1 for k, iou in enumerate(ious) if iou >= threshold), None) for ious in sequences]
        name = f"{threshold:.2f}"
        summary[f"NoC@{name}"] = float(np.mean([cap if c is None else c for c in counts])) if counts else None
        summary[f"failed@{name}"] = sum(c is None for c in counts)
    for k in (1, 2, 3):
        reached = [ious[min(k, len(ious)) - 1] for ious in sequences if ious]
        summary[f"IoU@{k}"] = float(np.mean(reached)) if reached else None
    return summary | {"n": len(sequences)}
