"""How a sequence of prompts becomes a mask: which window to look through, then one decode per click, in order.

There is one ``replay``: what the editor shows after some clicks is what ``pslg evaluate-clicks`` and ``pslg simulate``
count for the same clicks. The mask is a function of image, model, region and prompts only; what is kept makes it
faster.

A click says where an object is, not how large. Models that embed whole images do not care; the compact segmenter looks
through a window, so the window is found by a pure rule: several sizes around the first positive click are tried and the
likeliest mask tells the object's extent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backend.bounded_cache import BoundedCache
from backend.pipeline.scores import log_odds
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.types import Box, Embedding, Mask, MaskPrediction, Point, Prompts
from dataset_tools.errors import PromptError

__all__ = [
    "CLICK_OBJECT_SIDES",
    "KeptReplays",
    "ReplayCache",
    "replay",
]

CLICK_OBJECT_SIDES = (40.0, 100.0, 250.0)
"""Sides in pixels of the objects supposed around a lone click; their windows are tried."""

LAST_CLICK_FOR_WINDOW = 3
"""Positive clicks after this one leave the window alone unless they lie outside it."""
TOLERATED_ZOOM = 1.3
"""Ratio of the sides of two windows up to which the present one is kept."""
_SMALLNESS = 0.5
"""What a supposed side counts against itself, by its logarithm. It and the rule were chosen on validation images: mean
IoU after one click 0.785 -> 0.793 (NWPU VHR-10, 120 objects) and 0.467 -> 0.580 (iSAID, 150)."""
_PLACE_BYTES = 500

Embed = Callable[[Box], Embedding]
"""Features of one window of the image at hand: ``Segmenter.embed`` or a look-up in a store before it."""


class _Sight(NamedTuple):
    """What clicks without a box or a region have made known.

    ``extent`` is the box around the mask so far, of area 0 for an empty one; None where every window is the whole image
    and nothing can move it.
    """

    window: Box
    extent: Box | None


class ReplayCache:
    """Logits and windows of replays, so that a further click costs one decode. Thread-safe.

    Args:
        logits_bytes: bound on the memory of logits; windows take a little more.
    """

    def __init__(self, logits_bytes: int = 32_000_000) -> None:
        self.logits: BoundedCache[Hashable, npt.NDArray[np.float32]] = BoundedCache(logits_bytes)
        self.sights: BoundedCache[Hashable, _Sight] = BoundedCache(1_000_000)
        self.outlines: BoundedCache[Hashable, tuple[Point, ...]] = BoundedCache(1_000_000)

    def of(self, *names: str) -> KeptReplays:
        """What is kept under ``names``: they must tell everything but the prompts that the mask depends on.

        That is the image, the model and, where there is one, the content of the region that is refined.
        """
        return KeptReplays(self, names)


@dataclass(frozen=True)
class KeptReplays:
    """Replays of one image, model and region in a ``ReplayCache``."""

    cache: ReplayCache
    names: tuple[str, ...]


def replay(
    segmenter: Segmenter,
    embed: Embed,
    image_size: tuple[int, int],
    prompts: Prompts,
    region: Mask | None = None,
    kept: KeptReplays | None = None,
) -> MaskPrediction:
    """The mask after ``prompts``, decoded one after the other as an annotator's session made them.

    The first decode sees the box, or the first click with the region as its mask prompt, or the clicks up to the first
    positive one; each further decode sees one click more and the logits of the decode before.

    The window is that of the region, or of the box, widened for positive clicks outside it. Negative clicks outside
    change nothing: the mask ends at the window. Where there are only clicks, the first positive one is decoded in the
    windows of objects of ``CLICK_OBJECT_SIDES``, and the box of the likeliest of these masks makes the window: by
    predicted IoU, for small objects, against masks that outgrow the object supposed. The second and the third positive
    click move it only if the mask after them asks for one of quite another size, or if they lie outside.

    Args:
        segmenter: decodes, and turns boxes into windows.
        embed: features of a window of the image.
        image_size: (height, width) of the image in pixels.
        prompts: clicks in their order and at most one box; no mask logits, which come from the replay itself.
        region: bool[H, W], the mask that is refined; an empty one counts as None.
        kept: what earlier replays of this image, model and region left.

    Raises:
        PromptError: there is neither a positive click nor a box nor a region to begin with, a region comes without a
            click or box, or see ``Segmenter.decode``.
    """
    if prompts.mask_logits is not None:
        raise PromptError("a replay makes its mask logits itself: give the region as a mask")
    session = _Session(segmenter, embed, image_size, kept or ReplayCache().of())
    extent = None if region is None else Box.of_mask(region)
    if region is None or extent is None or not extent.area:
        region, extent = None, prompts.box
    positive = prompts.points[prompts.point_labels == 1]
    window = session.window_of_clicks(positive) if extent is None else session.window_around(extent, positive)
    return session.decode(window, prompts, region)


class _Session:
    """One replay: finds the window and decodes in it; the last mask is at hand, so that none is decoded twice."""

    def __init__(self, segmenter: Segmenter, embed: Embed, image_size: tuple[int, int], kept: KeptReplays) -> None:
        self._segmenter = segmenter
        self._embed = embed
        self._image_size = image_size
        self._names = kept.names
        self._cache = kept.cache
        self._last: tuple[Hashable, MaskPrediction] | None = None

    def window_around(self, extent: Box, positive: npt.NDArray[np.float32]) -> Box:
        """The window for an object in ``extent``, wide enough for the ``positive`` clicks float32[N, 2]."""
        window = self._segmenter.window_for(extent, self._image_size)
        outside = positive[~_within(positive, window)]
        if len(outside):
            window = self._segmenter.window_for(_hull(extent, outside), self._image_size)
        return window

    def window_of_clicks(self, positive: npt.NDArray[np.float32]) -> Box:
        """The window where nothing but ``positive`` clicks float32[N, 2] says which object is meant."""
        if not len(positive):
            raise PromptError("clicks without a box or a region need a positive one first: click on the object")
        count, sight = len(positive), None
        while count and (sight := self._cache.sights.get(self._sight_key(positive[:count]))) is None:
            count -= 1
        for number in range(count + 1, len(positive) + 1):
            clicks = positive[:number]
            sight = self._first_sight(clicks) if sight is None else self._next_sight(sight, clicks)
            self._cache.sights.put(self._sight_key(clicks), sight, _PLACE_BYTES)
        assert sight is not None  # noqa: S101 - there is a click
        return sight.window

    def _sight_key(self, positive: npt.NDArray[np.float32]) -> Hashable:
        return self._names, positive.tobytes()

    def _first_sight(self, click: npt.NDArray[np.float32]) -> _Sight:
        x, y = (float(value) for value in click[0])
        windows: dict[Box, float] = {}
        for side in CLICK_OBJECT_SIDES:
            supposed = Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
            windows.setdefault(self._segmenter.window_for(supposed, self._image_size), side)
        if len(windows) == 1:
            return _Sight(next(iter(windows)), None)
        seen = [(side, self.decode(window, _positive(click))) for window, side in windows.items()]
        tried = [(side, found.predicted_iou, _clicked_extent(found.mask, x, y)) for side, found in seen]
        extent = max(tried, key=lambda one: _belief(*one))[2]
        return _Sight(self._segmenter.window_for(_hull(extent, click), self._image_size), extent)

    def _next_sight(self, sight: _Sight, clicks: npt.NDArray[np.float32]) -> _Sight:
        window, extent = sight
        if extent is None:
            return sight
        if not _within(clicks, window).all():
            window = self._segmenter.window_for(_hull(extent, clicks), self._image_size)
        if len(clicks) <= LAST_CLICK_FOR_WINDOW:
            extent = Box.of_mask(self.decode(window, _positive(clicks)).mask)
            wanted = self._segmenter.window_for(_hull(extent, clicks), self._image_size)
            if not 1 / TOLERATED_ZOOM < (wanted.x1 - wanted.x0) / (window.x1 - window.x0) < TOLERATED_ZOOM:
                window = wanted
        return _Sight(window, extent)

    def decode(self, window: Box, prompts: Prompts, region: Mask | None = None) -> MaskPrediction:
        """The mask after all of ``prompts`` in one window."""
        total = len(prompts.points)
        if prompts.box is not None:
            first = 0
        elif region is not None:
            first = 1
        else:
            first = _first_replayed(prompts.point_labels)
        if first > total:
            raise PromptError("a region is refined by clicks or a box, and there is none")

        def key(count: int) -> Hashable:
            clicks = prompts.points[:count].tobytes(), prompts.point_labels[:count].tobytes()
            return self._names, window, prompts.box, region is not None, clicks

        if self._last is not None and self._last[0] == key(total):
            return self._last[1]
        embedding = self._embed(window)
        logits, done = None, total
        while done > first and logits is None:
            done -= 1
            logits = self._cache.logits.get(key(done))
        start = first if logits is None else done + 1
        if logits is None and region is not None:
            logits = self._segmenter.mask_prompt(embedding, region)
        for count in range(start, total + 1):
            seen = Prompts(prompts.points[:count], prompts.point_labels[:count], prompts.box, logits)
            prediction = self._segmenter.decode(embedding, seen)
            logits = prediction.low_res_logits
            self._cache.logits.put(key(count), logits, logits.nbytes)
        self._last = key(total), prediction
        return prediction


def _clicked_extent(mask: Mask, x: float, y: float) -> Box:
    """The box around the part of ``mask`` under a click; around all of it where the click lies beside."""
    return Box.of_mask(clean_mask(mask, 1, 0, (Point(x, y),), only_clicked=True))


def _belief(side: float, predicted_iou: float, extent: Box) -> float:
    """Log odds that a lone click's object is the one seen, ``extent``, where one of ``side`` pixels was supposed.

    Small objects are the more frequent ones, and a mask that outgrows what was supposed has run over its surroundings:
    with the predicted IoU alone, one click on a small car takes the road.
    """
    grown = max(extent.width, extent.height) / side
    return log_odds(predicted_iou) - _SMALLNESS * math.log(side) - math.log(max(grown, 1.0))


def _positive(points: npt.NDArray[np.float32]) -> Prompts:
    return Prompts(points=points, point_labels=np.ones(len(points), np.int64))


def _within(points: npt.NDArray[np.float32], window: Box) -> npt.NDArray[np.bool_]:
    """bool[N]: which of ``points`` float32[N, 2], (x, y), lie in ``window``, its borders included."""
    return np.asarray(((points >= window[:2]) & (points <= window[2:])).all(axis=1))


def _hull(extent: Box, points: npt.NDArray[np.float32]) -> Box:
    """The box around an object, unless it is empty, and the clicks that it should hold."""
    corners = np.concatenate([points, np.reshape(extent, (2, 2))]) if extent.area > 0 else points
    x0, y0, x1, y1 = (float(v) for v in (*corners.min(axis=0), *corners.max(axis=0)))
    return Box(x0, y0, x1, y1)


def _first_replayed(point_labels: npt.NDArray[np.int64]) -> int:
    """How many clicks the first decode sees where nothing but clicks says which object is meant.

    All up to the first positive one: negative clicks alone outline nothing.
    """
    return int(np.flatnonzero(point_labels == 1)[0]) + 1
