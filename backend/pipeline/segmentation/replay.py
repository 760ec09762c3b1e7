"""How a sequence of prompts becomes a mask: which window to look through, then one decode per click, in order.

There is one ``replay``: what the editor shows after some clicks is what ``pslg evaluate-clicks`` and ``pslg simulate``
count for the same clicks. The mask is a function of image, model, region and prompts only; what is kept makes it
faster.

A click says where an object is, not how large. Models that embed whole images do not care; the compact segmenter looks
through a window, so the window is found by a pure rule: several sizes around the first positive click are tried and the
likeliest mask tells the object's extent. A grounder that sees an object of the picked label under the click knows
better, and is asked first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from backend.bounded_cache import BoundedCache
from backend.pipeline.scores import log_odds
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.segmentation.logits import moved
from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.segmentation.windows import WINDOW_FACTOR
from backend.pipeline.types import Box, Embedding, Mask, MaskPrediction, Point, Prompts
from dataset_tools.errors import PromptError

__all__ = [
    "CLICK_OBJECT_SIDES",
    "KeptReplays",
    "ReplayCache",
    "Supposed",
    "replay",
]

CLICK_OBJECT_SIDES = (40.0, 100.0, 250.0)
"""Sides in pixels of the objects supposed around a lone click; their windows are tried."""

TOLERATED_ZOOM = 1.3
"""Ratio of the sides of two windows up to which the present one is kept."""
_GROWTH = 1.0
"""How far the object may go on beyond a border of the window that the mask runs into, in sides of the object that the
window is made for."""
_PLACE_BYTES = 500
_SMALLNESS, _OUTGROWN = 0.075, 0.9
"""What the side seen, and its ratio to a smaller one supposed, count against a mask by their logarithms. Fitted on
5,210 clicks on objects of the training parts."""

Embed = Callable[[Box], Embedding]
"""Features of one window of the image at hand: ``Segmenter.embed`` or a look-up in a store before it."""

Supposed = Callable[[Point], Box | None]
"""The box, in pixels of the image, of the object that a lone click there is likely meant for; None where nobody knows.
``PslgSam.object_at`` asks the grounder."""

_Kept = TypeVar("_Kept")


class _Sight(NamedTuple):
    """How far clicks without a box or a region have come.

    Attributes:
        window: that they are decoded in.
        extent: the box around the parts of the mask under positive clicks, of area 0 where there are none; None where
            every window is the whole image and nothing can move it.
        logits: float32[h, w] of the last decode, None before the first.
    """

    window: Box
    extent: Box | None
    logits: npt.NDArray[np.float32] | None


class ReplayCache:
    """Logits and windows of replays, so that a further click costs one decode. Thread-safe.

    Args:
        logits_bytes: bound on the memory of the logits of regions and boxes, and on that of clicks alone.
    """

    def __init__(self, logits_bytes: int = 32_000_000) -> None:
        self.logits: BoundedCache[Hashable, npt.NDArray[np.float32]] = BoundedCache(logits_bytes)
        self.sights: BoundedCache[Hashable, _Sight] = BoundedCache(logits_bytes)
        self.outlines: BoundedCache[Hashable, tuple[Point, ...]] = BoundedCache(1_000_000)

    def of(self, *names: str) -> KeptReplays:
        """What is kept under ``names``: they must tell everything but the prompts that the mask depends on.

        That is the image, the model, what is supposed under a click, and the content of the region that is refined.
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
    supposed: Supposed | None = None,
) -> MaskPrediction:
    """The mask after ``prompts``, decoded one after the other as an annotator's session made them.

    The first decode sees the box, or the first click with the region as its mask prompt, or the clicks up to the first
    positive one; each further decode sees one click more and the logits of the decode before.

    The window is that of the region, or of the box, widened for positive clicks outside it. Negative clicks outside
    change nothing: the mask ends at the window. Where there are only clicks, the window is made for the object that is
    ``supposed`` under the first positive one. Without such, the click is decoded in the windows of objects of
    ``CLICK_OBJECT_SIDES``, and the box of the likeliest of these masks makes the window: by predicted IoU, for small
    objects, against masks that outgrow the object supposed. After each click the window is held against the mask:
    where that runs into its border, or would ask for a window of quite another size, the object is looked at once more
    through the one that it asks for, with the mask so far as a prompt.

    Args:
        segmenter: decodes, and turns boxes into windows.
        embed: features of a window of the image.
        image_size: (height, width) of the image in pixels.
        prompts: clicks in their order and at most one box; no mask logits, which come from the replay itself.
        region: bool[H, W], the mask that is refined; an empty one counts as None.
        kept: what earlier replays of this image, model and region left.
        supposed: says which object lies under a lone click; not asked by models that embed whole images.

    Raises:
        PromptError: there is neither a positive click nor a box nor a region to begin with, a region comes without a
            click or box, or see ``Segmenter.decode``.
    """
    if prompts.mask_logits is not None:
        raise PromptError("a replay makes its mask logits itself: give the region as a mask")
    session = _Session(segmenter, embed, image_size, kept or ReplayCache().of(), supposed)
    extent = None if region is None else Box.of_mask(region)
    if region is None or extent is None or not extent.area:
        region, extent = None, prompts.box
    if extent is None:
        return session.follow(prompts)
    window = session.window_around(extent, prompts.points[prompts.point_labels == 1])
    return session.decode(window, prompts, region)


class _Session:
    """One replay: finds the windows and decodes in them."""

    def __init__(
        self,
        segmenter: Segmenter,
        embed: Embed,
        image_size: tuple[int, int],
        kept: KeptReplays,
        supposed: Supposed | None,
    ) -> None:
        self._supposed = supposed
        self._segmenter = segmenter
        self._embed = cache(embed)
        self._image_size = image_size
        self._names = kept.names
        self._cache = kept.cache

    def window_around(self, extent: Box, positive: npt.NDArray[np.float32]) -> Box:
        """The window for an object in ``extent``, wide enough for the ``positive`` clicks float32[N, 2]."""
        window = self._segmenter.window_for(extent, self._image_size)
        outside = positive[~_within(positive, window)]
        if len(outside):
            window = self._segmenter.window_for(_hull(extent, outside), self._image_size)
        return window

    def follow(self, prompts: Prompts) -> MaskPrediction:
        """The mask after clicks alone, one after the other, through windows that go with it."""
        first = _first_replayed(prompts.point_labels)
        if not first:
            raise PromptError("clicks without a box or a region need a positive one first: click on the object")

        def key(count: int) -> Hashable:
            return self._names, prompts.points[:count].tobytes(), prompts.point_labels[:count].tobytes()

        newest = _newest(self._cache.sights, key, first, len(prompts.points))
        done, sight = newest
        if sight is None:
            done, click = first - 1, prompts.points[first - 1 : first]
            if (sight := self._cache.sights.get((self._names, click.tobytes()))) is None:
                sight = self._first_sight(click)
                self._cache.sights.put((self._names, click.tobytes()), sight, _PLACE_BYTES)
        for count in range(done + 1, len(prompts.points) + 1):
            seen = Prompts(prompts.points[:count], prompts.point_labels[:count])
            sight, prediction = self._next_sight(sight, seen)
            self._cache.sights.put(key(count), sight, prediction.low_res_logits.nbytes)
        return prediction

    def _first_sight(self, click: npt.NDArray[np.float32]) -> _Sight:
        x, y = (float(value) for value in click[0])
        windows: dict[Box, float] = {}
        for side in CLICK_OBJECT_SIDES:
            supposed = Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
            windows.setdefault(self._segmenter.window_for(supposed, self._image_size), side)
        if len(windows) == 1:
            return _Sight(next(iter(windows)), None, None)
        known = None if self._supposed is None else self._supposed(Point(x, y))
        if known is not None:
            return _Sight(self._segmenter.window_for(_hull(known, click), self._image_size), known, None)
        seen = [(side, self._decoded(window, _positive(click), None)) for window, side in windows.items()]
        tried = [(side, found.predicted_iou, _clicked_extent(found.mask, click)) for side, found in seen]
        extent = max(tried, key=lambda one: _belief(*one))[2]
        return _Sight(self._segmenter.window_for(_hull(extent, click), self._image_size), extent, None)

    def _next_sight(self, sight: _Sight, seen: Prompts) -> tuple[_Sight, MaskPrediction]:
        """What the last of the clicks ``seen`` makes of ``sight``."""
        window, extent, logits = sight
        if extent is None:
            prediction = self._decoded(window, seen, logits)
            return _Sight(window, None, prediction.low_res_logits), prediction
        positive = seen.points[seen.point_labels == 1]
        if not _within(positive, window).all():
            window, logits = self._moved(sight, self._segmenter.window_for(_hull(extent, positive), self._image_size))
        prediction = self._decoded(window, seen, logits)
        extent = _clicked_extent(prediction.mask, positive)
        sight = _Sight(window, extent, prediction.low_res_logits)
        wanted = self._wanted(window, extent, positive)
        if wanted == window:
            return sight, prediction
        window, logits = self._moved(sight, wanted)
        prediction = self._decoded(window, seen, logits)
        return _Sight(window, _clicked_extent(prediction.mask, positive), prediction.low_res_logits), prediction

    def _decoded(self, window: Box, seen: Prompts, logits: npt.NDArray[np.float32] | None) -> MaskPrediction:
        return self._segmenter.decode(self._embed(window), Prompts(seen.points, seen.point_labels, mask_logits=logits))

    def _moved(self, sight: _Sight, window: Box) -> tuple[Box, npt.NDArray[np.float32] | None]:
        return window, None if sight.logits is None else moved(sight.logits, sight.window, window)

    def _wanted(self, window: Box, extent: Box, positive: npt.NDArray[np.float32]) -> Box:
        """The window that a mask in ``extent`` asks for: its own, unless that is much too large or cuts it off."""
        if not extent.area:
            return window
        hull, (height, width) = _hull(extent, positive), self._image_size
        further = _GROWTH * window.width / WINDOW_FACTOR
        # The window may reach over the image's border, which cuts nothing off.
        grown = Box(
            hull.x0 - further * (extent.x0 <= window.x0 > 0),
            hull.y0 - further * (extent.y0 <= window.y0 > 0),
            hull.x1 + further * (extent.x1 >= window.x1 < width),
            hull.y1 + further * (extent.y1 >= window.y1 < height),
        )
        wanted = self._segmenter.window_for(grown, self._image_size)
        zoom = wanted.width / window.width
        if grown != hull:
            return wanted if zoom > 1 else window
        return window if 1 / TOLERATED_ZOOM < zoom < TOLERATED_ZOOM else wanted

    def decode(self, window: Box, prompts: Prompts, region: Mask | None) -> MaskPrediction:
        """The mask after all of ``prompts``, a box or a region with clicks, in one window."""
        total = len(prompts.points)
        first = 0 if prompts.box is not None else 1
        if first > total:
            raise PromptError("a region is refined by clicks or a box, and there is none")

        def key(count: int) -> Hashable:
            clicks = prompts.points[:count].tobytes(), prompts.point_labels[:count].tobytes()
            return self._names, window, prompts.box, region is not None, clicks

        embedding = self._embed(window)
        newest = _newest(self._cache.logits, key, first, total)
        done, logits = newest
        start = first if logits is None else done + 1
        if logits is None and region is not None:
            logits = self._segmenter.mask_prompt(embedding, region)
        for count in range(start, total + 1):
            seen = Prompts(prompts.points[:count], prompts.point_labels[:count], prompts.box, logits)
            prediction = self._segmenter.decode(embedding, seen)
            logits = prediction.low_res_logits
            self._cache.logits.put(key(count), logits, logits.nbytes)
        return prediction


def _newest(
    kept: BoundedCache[Hashable, _Kept], key: Callable[[int], Hashable], first: int, total: int
) -> tuple[int, _Kept | None]:
    """The largest count of clicks, from ``first`` on and below ``total``, of which something is kept, and that."""
    for count in range(total - 1, first - 1, -1):
        if (found := kept.get(key(count))) is not None:
            return count, found
    return first, None


def _clicked_extent(mask: Mask, clicks: npt.NDArray[np.float32]) -> Box:
    """The box around the parts of ``mask`` under clicks float32[N, 2]; around all of it where they lie beside."""
    points = [Point(float(x), float(y)) for x, y in clicks]
    return Box.of_mask(clean_mask(mask, 1, 0, points, only_clicked=True))


def _belief(side: float, predicted_iou: float, extent: Box) -> float:
    """Log odds that a lone click's object is the one seen, ``extent``, where one of ``side`` pixels was supposed.

    A mask that outgrows what was supposed has run over its surroundings: with the predicted IoU alone, one click on a
    small car takes the road.
    """
    seen = max(extent.width, extent.height, 1.0)
    return log_odds(predicted_iou) - _SMALLNESS * math.log(seen) - _OUTGROWN * math.log(max(seen / side, 1.0))


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

    All up to the first positive one: negative clicks alone outline nothing. 0 where none is positive.
    """
    positive = np.flatnonzero(point_labels == 1)
    return int(positive[0]) + 1 if len(positive) else 0
