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
from typing import Any, NamedTuple

import numpy as np

from backend.evaluation.next_click import next_click
from backend.pipeline import PslgSam
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.segmentation.mask_cleaning import clean_mask, shown_mask
from backend.pipeline.segmentation.refinement import refines
from backend.pipeline.segmentation.replay import ReplayCache, Supposed, replay
from backend.pipeline.types import Box, Embedding, Image, Mask, MaskPrediction, NamedImage, Prompts
from backend.settings import Settings
from dataset_tools.labelled import LabelledImage, LabelledObject, Question
from dataset_tools.metrics import iou

__all__ = [
    "Shown",
    "boxed",
    "click_ious",
    "clicks_to",
    "corrected",
    "evaluate_clicks",
    "evaluate_prelabels",
    "summarize_clicks",
    "supposing",
]

SPECK_AREA: int = Settings.model_fields["speck_area"].default
HOLE_AREA: int = Settings.model_fields["hole_area"].default


class Shown(NamedTuple):
    """What the editor shows after a click.

    Attributes:
        mask: bool[H, W], cleaned.
        prediction: the segmenter's answer that it was made from.
    """

    mask: Mask
    prediction: MaskPrediction


def evaluate_clicks(
    pipeline: PslgSam,
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
            path, image = labelled.path, NamedImage.of(read_image(labelled.path))
        mask = target.mask()
        if mask.any():
            supposed = supposing(pipeline, image, target.category)
            ious = click_ious(pipeline.segmenter, image, mask, cap, enough=max(thresholds), supposed=supposed)
            sequences.setdefault(target.category, []).append(ious)
    every = [ious for part in sequences.values() for ious in part]
    total = summarize_clicks(every, thresholds, cap)
    return {
        **total,
        "total": total,
        "by_category": {name: summarize_clicks(part, thresholds, cap) for name, part in sorted(sequences.items())},
        "seconds": (time.perf_counter() - started) / max(1, len(every)),
    }


def evaluate_prelabels(
    pipeline: PslgSam,
    asked: Sequence[Question],
    read_image: Callable[[Path], Image],
    thresholds: Sequence[float],
    cap: int,
    progress: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Clicks that pre-labels still cost which are answered but not good enough, beside those of the same objects alone.

    Only expressions about one object that are answered with one mask count. The mask of another object than the one
    that was meant is such a pre-label too: it is deleted, and the clicks begin a new object. (Clicking it away piece by
    piece, as the largest error would have it, is no annotator's way.)

    Args:
        pipeline: answers the expressions and the clicks.
        asked: in the order of their images.
        read_image: gives uint8[H, W, 3] RGB.
        thresholds: IoU to reach; a pre-label is good enough from the largest on.
        cap: most clicks, which an object counts with that never gets there.
        progress: called with 1 for each expression.

    Returns:
        ``from_prelabel`` and ``without_prelabel``, each as of ``summarize_clicks`` over the same ``n`` objects, and
        ``answered``, ``good``, ``elsewhere``: how many expressions got one mask, one that is good enough, and one
        without a pixel of the object that was meant.
    """
    wanted = max(thresholds)
    answered, good, elsewhere = 0, 0, 0
    begun: list[list[float]] = []
    alone: list[list[float]] = []
    path: Path | None = None
    for question in asked:
        progress(1)
        if len(question.targets) != 1:
            continue
        if path != question.image.path:
            path, image = question.image.path, NamedImage.of(read_image(question.image.path))
        found = pipeline.prelabel(image.pixels(), question.expression.text, key=image.identity)
        if len(found) != 1:
            continue
        answered += 1
        target = question.targets[0].mask()
        supposed = supposing(pipeline, image, question.targets[0].category)
        start = clean_mask(found[0].mask, SPECK_AREA, HOLE_AREA)
        if iou(start, target) >= wanted:
            good += 1
            continue
        clicked = click_ious(pipeline.segmenter, image, target, cap, wanted, supposed=supposed)
        alone.append(clicked)
        if (start & target).any():
            clicked = click_ious(pipeline.segmenter, image, target, cap, wanted, start, supposed)
        else:
            elsewhere += 1
        begun.append([iou(start, target), *clicked])
    return {
        "answered": answered,
        "good": good,
        "elsewhere": elsewhere,
        "from_prelabel": summarize_clicks(begun, thresholds, cap, first=0),
        "without_prelabel": summarize_clicks(alone, thresholds, cap),
    }


def click_ious(
    segmenter: Segmenter,
    image: NamedImage,
    target: Mask,
    cap: int = 20,
    enough: float = 1.0,
    start: Mask | None = None,
    supposed: Supposed | None = None,
) -> list[float]:
    """IoU after each corrective click.

    Args:
        segmenter: the model.
        image: in which the object lies.
        target: bool[H, W], not empty.
        cap: most clicks.
        enough: stop when this IoU is reached.
        start: the pre-label bool[H, W] that is corrected; None: there is none.
        supposed: as of ``replay``.

    Returns:
        At least one and at most ``cap`` values; fewer than ``cap`` if ``enough`` was reached.
    """
    embed = cache(partial(segmenter.embed, image.pixels(), key=image.identity))
    ious: list[float] = []
    for shown in corrected(segmenter, embed, target, start, cap=cap, supposed=supposed):
        ious.append(iou(shown.mask, target))
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
    supposed: Supposed | None = None,
) -> int:
    """Corrective clicks until the mask's IoU with ``target`` is at least ``enough``; ``cap`` if it never is.

    Args:
        segmenter: answers the clicks.
        embed: features of a window of the image.
        target: bool[H, W], not empty.
        start: the pre-label bool[H, W] as the editor shows it; None or empty: there is none.
        enough: IoU in (0, 1].
        cap: most clicks.
        supposed: as of ``replay``.
    """
    if start is not None and iou(start, target) >= enough:
        return 0
    for count, shown in enumerate(corrected(segmenter, embed, target, start, cap=cap, supposed=supposed), 1):
        if iou(shown.mask, target) >= enough:
            return count
    return cap


def corrected(
    segmenter: Segmenter,
    embed: Callable[[Box], Embedding],
    target: Mask,
    start: Mask | None = None,
    *,
    cap: int,
    supposed: Supposed | None = None,
) -> Iterator[Shown]:
    """What the editor shows after each corrective click, until it is the target.

    A pre-label is refined as the server refines a region. A click beside it that begins a new object, as it does there,
    leaves it out.

    Args:
        segmenter: answers the clicks.
        embed: features of a window of the image.
        target: bool[H, W], not empty.
        start: the mask before the first click; None or empty: there is none.
        cap: most clicks.
        supposed: as of ``replay``.
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
        if len(labels) == 1 and region is not None and not refines(segmenter, embed, size, prompts, region, supposed):
            region = None
        prediction = replay(segmenter, embed, size, prompts, region, kept, supposed)
        shown = shown_mask(prediction.mask, prompts, SPECK_AREA, HOLE_AREA, new=region is None)
        yield Shown(shown, prediction)


def supposing(pipeline: PslgSam, image: NamedImage, label: str) -> Supposed:
    """What the server supposes under a click with ``label`` in ``image``."""
    return lambda point: pipeline.object_at(point, [label], image)


def boxed(segmenter: Segmenter, embed: Callable[[Box], Embedding], image_size: tuple[int, int], box: Box) -> Shown:
    """What the editor shows for a drawn ``box`` in an image of (height, width); ``embed`` as in ``corrected``."""
    prompts = Prompts(box=box)
    prediction = replay(segmenter, embed, image_size, prompts)
    return Shown(shown_mask(prediction.mask, prompts, SPECK_AREA, HOLE_AREA, new=True), prediction)


def summarize_clicks(
    sequences: Sequence[Sequence[float]], thresholds: Sequence[float] = (0.80, 0.85), cap: int = 20, *, first: int = 1
) -> dict[str, Any]:
    """Means over objects of the number of clicks until each threshold.

    Args:
        sequences: IoU after each click, one sequence per object (``click_ious`` with ``enough`` at or above the largest
            threshold).
        thresholds: IoU to reach.
        cap: clicks counted for an object that never reaches a threshold.
        first: how many clicks the first value of a sequence stands for: 0 where it is a pre-label's.

    Returns:
        ``NoC@<threshold>``, ``failed@<threshold>`` (objects that never reach it), ``IoU@<k>`` after the first clicks,
        ``n``.
    """
    summary: dict[str, Any] = {}
    for threshold in thresholds:
        counts = [next((k for k, iou in enumerate(ious, first) if iou >= threshold), None) for ious in sequences]
        name = f"{threshold:.2f}"
        summary[f"NoC@{name}"] = float(np.mean([cap if c is None else c for c in counts])) if counts else None
        summary[f"failed@{name}"] = sum(c is None for c in counts)
    for k in (1, 2, 3):
        reached = [ious[min(k - first, len(ious) - 1)] for ious in sequences if ious]
        summary[f"IoU@{k}"] = float(np.mean(reached)) if reached else None
    return summary | {"n": len(sequences)}
