"""What it costs to turn a pre-label into the object: clicks, counted with the model that answers them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from backend.evaluation.next_click import next_click
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.segmentation.replay import click_window, decode_clicks, inside
from backend.pipeline.types import Box, Embedding, Mask, Prompts
from dataset_tools.metrics import iou

__all__ = ["clicks_to"]


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

    Each click lies in the deepest point of the largest error. A pre-label is refined as the server refines a region:
    its mask is the first decode's mask prompt. Without one, or once a click lies outside its window, the clicks stand
    for themselves.

    Args:
        segmenter: answers the clicks.
        embed: features of a window of the image.
        target: bool[H, W], not empty.
        start: the pre-label bool[H, W]; None or empty: there is none.
        enough: IoU in (0, 1].
        cap: most clicks.
    """
    size = (target.shape[0], target.shape[1])
    mask = np.zeros_like(target) if start is None else start
    window: Box | None = None
    logits: npt.NDArray[np.float32] | None = None
    if mask.any():
        window = segmenter.window_for(Box.of_mask(mask), size)
        logits = segmenter.mask_prompt(embed(window), mask)
    points: npt.NDArray[np.float32] = np.zeros((0, 2), np.float32)
    labels: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    for count in range(cap + 1):
        if iou(mask, target) >= enough:
            return count
        click = next_click(mask, target)
        if click is None or count == cap:
            break
        points = np.concatenate([points, np.array([[click.x, click.y]], np.float32)])
        labels = np.append(labels, int(click.positive))
        if logits is None or window is None or not inside(points[labels == 1], window):
            if not labels.any():  # nothing to keep: the annotator deletes the region and clicks on the object
                points, labels, mask, logits = points[:0], labels[:0], np.zeros_like(target), None
                continue
            window = click_window(segmenter, embed, size, points, labels)
            prediction = decode_clicks(segmenter, embed(window), Prompts(points, labels))
        else:
            prediction = segmenter.decode(embed(window), Prompts(points, labels, mask_logits=logits))
        mask, logits = prediction.mask, prediction.low_res_logits
    return cap
