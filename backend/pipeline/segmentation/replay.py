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

from backend.pipeline.segmentation import Segmenter
from backend.pipeline.types import Box, Embedding, MaskPrediction, Prompts
from dataset_tools.errors import PromptError

__all__ = ["CLICK_OBJECT_SIDES", "click_window", "decode_clicks", "first_replayed", "inside"]

CLICK_OBJECT_SIDES = (40.0, 100.0, 250.0)
"""Sides in pixels of the objects supposed around a lone click; their windows are tried."""

LAST_CLICK_FOR_WINDOW = 3
"""Positive clicks after this one leave the window alone unless they lie outside it."""
TOLERATED_ZOOM = 1.3
"""Ratio of the sides of two windows up to which the present one is kept."""

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
    predicted IoU wins, and the window is ``segmenter.window_for`` its box. The second and the third positive click move
    the window only if the mask after them asks for one of quite another size, or if they lie outside; negative clicks
    never do. Models that embed whole images get (0, 0, width, height) at once.

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
    x, y = (float(v) for v in positive[0])
    supposed = (Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2) for side in CLICK_OBJECT_SIDES)
    windows = list(dict.fromkeys(segmenter.window_for(box, image_size) for box in supposed))
    if len(windows) == 1:
        return windows[0]
    first = [segmenter.decode(embed(window), _positive(positive[:1])) for window in windows]
    best = max(first, key=lambda prediction: prediction.predicted_iou)
    window = segmenter.window_for(_hull(best, positive[:1]), image_size)
    for count in range(2, len(positive) + 1):
        clicks = positive[:count]
        if not inside(clicks, window):
            window = segmenter.window_for(_hull(best, clicks), image_size)
        if count <= LAST_CLICK_FOR_WINDOW:
            best = decode_clicks(segmenter, embed(window), _positive(clicks))
            wanted = segmenter.window_for(_hull(best, clicks), image_size)
            if not 1 / TOLERATED_ZOOM < wanted.width / window.width < TOLERATED_ZOOM:
                window = wanted
    return window


def _positive(points: npt.NDArray[np.float32]) -> Prompts:
    return Prompts(points=points, point_labels=np.ones(len(points), np.int64))


def inside(points: npt.NDArray[np.float32], window: Box) -> bool:
    """Whether all of ``points`` float32[N, 2], (x, y), lie in ``window``, its borders included."""
    return bool(((points >= window[:2]) & (points <= window[2:])).all())


def _hull(prediction: MaskPrediction, points: npt.NDArray[np.float32]) -> Box:
    """The box around a mask and the clicks that it should hold."""
    extent = Box.of_mask(prediction.mask)
    corners = np.concatenate([points, np.reshape(extent, (2, 2))]) if extent.area > 0 else points
    x0, y0, x1, y1 = (float(v) for v in (*corners.min(axis=0), *corners.max(axis=0)))
    return Box(x0, y0, x1, y1)


def first_replayed(point_labels: npt.NDArray[np.int64]) -> int:
    """How many clicks the first decode of a replay sees where nothing but clicks says which object is meant.

    All up to the first positive one: negative clicks alone outline nothing. Without a positive click, one.

    Args:
        point_labels: int64[N], 1 foreground, 0 background.
    """
    positive = np.flatnonzero(point_labels == 1)
    return int(positive[0]) + 1 if len(positive) else 1


def decode_clicks(segmenter: Segmenter, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
    """The mask after the clicks of ``prompts``, replayed in order.

    The first decode sees the first click with the box and mask logits of ``prompts`` (without these, the clicks up to
    the first positive one); each further one sees one click more and the logits of the decode before as mask prompt,
    as an annotator's session would have produced them.

    Raises:
        PromptError: see ``Segmenter.decode``; a replay needs at least one click.
    """
    if not len(prompts.points):
        raise PromptError("a replay of clicks needs at least one click")
    logits = prompts.mask_logits
    alone = prompts.box is None and logits is None
    first = first_replayed(prompts.point_labels) if alone else 1
    for count in range(first, len(prompts.points) + 1):
        prediction = segmenter.decode(
            embedding, Prompts(prompts.points[:count], prompts.point_labels[:count], prompts.box, logits)
        )
        logits = prediction.low_res_logits
    return prediction
