"""Clicks without a box: which window to embed, and how a sequence of clicks becomes a mask.

A click says where an object is, not how large. Models that embed whole images do not care; the compact segmenter looks
through a window, so the window is found by a pure rule: several sizes around the first positive click are tried and the
most confident mask tells the object's extent. Everything here depends on its arguments only, so that any worker gives
the same mask.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from backend.errors import PromptError
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.types import Box, Embedding, MaskPrediction, Prompts

__all__ = ["CLICK_OBJECT_SIDES", "click_window", "decode_clicks"]

CLICK_OBJECT_SIDES = (32.0, 80.0, 200.0)
"""Sides in pixels of the objects supposed around a lone click; their windows are tried."""

Embed = Callable[[Box], Embedding]
"""Features of one window of the image at hand: ``Segmenter.embed`` or a look-up in a store before it."""


def click_window(
    segmenter: Segmenter,
    embed: Embed,
    image_size: tuple[int, int],
    points: npt.NDArray[np.float32],
    point_labels: npt.NDArray[np.int64],
) -> Box:
    """The window in which to decode clicks that come without a box.

    The first positive click is decoded in the windows of objects of ``CLICK_OBJECT_SIDES``; the mask with the highest
    predicted IoU times stability wins, and the window is ``segmenter.window_for`` its box. Later clicks therefore keep
    the window, unless a positive one lies outside: then the window is the one for the box around mask and clicks.

    Args:
        segmenter: decodes, and turns boxes into windows.
        embed: features of a window of the image.
        image_size: (height, width) of the image in pixels.
        points: float32[N, 2], (x, y) in pixels of the image.
        point_labels: int64[N], 1 foreground, 0 background.

    Raises:
        PromptError: there is no positive click.
    """
    positive = points[point_labels == 1]
    if not len(positive):
        raise PromptError("clicks without a box or a region need a positive one first: click on the object")
    first = positive[:1]
    x, y = (float(v) for v in first[0])
    supposed = (Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2) for side in CLICK_OBJECT_SIDES)
    windows = list(dict.fromkeys(segmenter.window_for(box, image_size) for box in supposed))
    if len(windows) == 1:
        return windows[0]
    click = Prompts(points=first, point_labels=np.ones(1, np.int64))
    predictions = [(window, segmenter.decode(embed(window), click)) for window in windows]
    window, best = max(predictions, key=lambda item: item[1].predicted_iou * item[1].stability)
    extent = Box.of_mask(best.mask)
    if extent.area > 0:
        window = segmenter.window_for(extent, image_size)
    if not ((positive >= window[:2]) & (positive <= window[2:])).all():
        corners = np.concatenate([positive, np.reshape(extent, (2, 2))]) if extent.area > 0 else positive
        hull = Box(*(float(v) for v in (*corners.min(axis=0), *corners.max(axis=0))))
        window = segmenter.window_for(hull, image_size)
    return window


def decode_clicks(segmenter: Segmenter, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
    """The mask after the clicks of ``prompts``, replayed in order.

    The first decode sees the first click with the box and mask logits of ``prompts``; each further one sees one click
    more and the logits of the decode before as mask prompt, as an annotator's session would have produced them.

    Raises:
        PromptError: see ``Segmenter.decode``; a replay needs at least one click.
    """
    if not len(prompts.points):
        raise PromptError("a replay of clicks needs at least one click")
    logits = prompts.mask_logits
    for count in range(1, len(prompts.points) + 1):
        prediction = segmenter.decode(
            embedding, Prompts(prompts.points[:count], prompts.point_labels[:count], prompts.box, logits)
        )
        logits = prediction.low_res_logits
    return prediction
