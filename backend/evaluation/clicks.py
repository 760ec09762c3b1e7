"""NoC, the number of clicks: how many clicks a mask needs until its IoU reaches a threshold.

The next click lies in the deepest point of the largest error region, the first one therefore in the object's deepest
point. Clicks come without a box, so that the window is found by ``click_window`` as in the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.evaluation.next_click import next_click
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.segmentation.replay import click_window, decode_clicks
from backend.pipeline.types import Box, Embedding, Image, Mask, MaskPrediction, Prompts
from dataset_tools.labelled import LabelledImage, LabelledObject
from dataset_tools.metrics import iou

__all__ = ["click_ious", "evaluate_clicks", "summarize_clicks"]


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
    embeddings: dict[Box, Embedding] = {}

    def embed(window: Box) -> Embedding:
        if window not in embeddings:
            embeddings[window] = segmenter.embed(image, window)
        return embeddings[window]

    points: npt.NDArray[np.float32] = np.zeros((0, 2), np.float32)
    labels: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    size = (target.shape[0], target.shape[1])
    window: Box | None = None
    prediction: MaskPrediction | None = None
    ious: list[float] = []
    while len(ious) < cap:
        predicted = np.zeros_like(target) if prediction is None else prediction.mask
        click = next_click(predicted, target)
        if click is None:
            break
        points = np.concatenate([points, np.array([[click.x, click.y]], np.float32)])
        labels = np.append(labels, int(click.positive))
        chosen = click_window(segmenter, embed, size, points, labels)
        if prediction is None or chosen != window:
            prediction = decode_clicks(segmenter, embed(chosen), Prompts(points, labels))
        else:  # what decode_clicks would do, without the clicks that were decoded already
            prompts = Prompts(points, labels, mask_logits=prediction.low_res_logits)
            prediction = segmenter.decode(embed(chosen), prompts)
        window = chosen
        ious.append(iou(prediction.mask, target))
        if ious[-1] >= enough:
            break
    return ious


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
