"""A decoder's low-resolution logits: clicks made to hold in them, and how they become a mask of the image.

The compact decoder has seen few thin parts; a click on a wing tip that changes nothing would leave an annotator no way
to finish, and one on a sliver may change the other end of the object. segment-anything's own models are used as
published, without corrections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backend.pipeline.types import Box, Embedding, Mask

__all__ = ["STABILITY_OFFSET", "PlacedLogits", "hold_clicks", "moved", "upsampled"]

STABILITY_OFFSET = 1.0
"""Distance of the stability score's logit thresholds from the mask threshold (as in SAM's mask generator)."""
_MARGIN = 2
"""Low-resolution pixels around what is kept: one that interpolation reaches, one that takes the cut's own border."""

CLICK_MARGIN = 2.0
"""Logit that a contradicted click's own pixel gets at least."""
_ALIKE = 1.0
"""Logits by which the mask may be surer than at the click where it still changes with it."""
_SPREAD = 8 / 3
"""How much further than its radius a click changes what is connected with it and alike."""
_LEAST_REACH = 0.7
"""Low-resolution pixels around a click that hold with it, however near one of the other sign is."""
_OF_SLIVER = 1.5
"""Reach of a click, in its distance from what is on its side already."""
_LEAST_CHANGE, _CHANGE = 16.0, 10.0
"""How far from the last click the mask may change: low-resolution pixels at least, and times the click's distance from
what was on its side before. With ``_OF_SLIVER`` chosen on validation images (``docs/pipeline.md``)."""
_SUREST = 6.0
"""What kept logits are cut to, plus and minus: as sure as a mask prompt is."""


def hold_clicks(
    logits: Tensor,
    places: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    radius: float,
    before: npt.NDArray[np.float32] | None = None,
) -> Tensor:
    """``logits`` with every click made to hold, and unchanged far from the last one.

    A last click that corrects the mask of ``before`` says how much was wrong there: it lies in the middle of a part as
    wide as twice its distance from the mask's contour. Much further away the mask stays what it was.

    A click that the mask contradicts, or all but contradicts, shifts the logits around it so far that its own pixel is
    clearly on its side, fully within half of its reach and fading to nothing at one and a half. The reach is
    ``radius``, and more where what is connected with the click is no surer against it than its own pixel: a wing that
    the mask misses comes as a whole, the grass beside it does not. It is less where the click's side is near, since a
    sliver is wrong there, and where a click of the other sign is, which is to hold as well; clicks are taken in order.
    A mask that agrees with all clicks stays as it is.

    Args:
        logits: float32[h, w].
        places: float64[N, 2], (x, y) of the clicks in pixels of the logits, whole numbers at their centres.
        labels: int64[N], 1 foreground, 0 background.
        radius: in pixels of the logits.
        before: float32[h, w], the logits that the last click was to correct; None: it was the first.
    """
    height, width = logits.shape
    rows = torch.arange(height, device=logits.device, dtype=torch.float32)[:, None]
    columns = torch.arange(width, device=logits.device, dtype=torch.float32)[None]
    held = logits if before is None or not len(labels) else _near_last(logits, before, places[-1], labels[-1] == 1)
    for (x, y), label in zip(places.tolist(), labels.tolist(), strict=True):
        sign = 1.0 if label == 1 else -1.0
        value = _value_at(held, x, y)
        missing = CLICK_MARGIN - sign * value
        if missing > 0:
            others = places[labels != label]
            free = min((math.hypot(x - float(u), y - float(v)) for u, v in others), default=math.inf) / 1.5
            away = _distance_to((sign * held > 0).cpu().numpy(), x, y)
            own = min(radius, max(_OF_SLIVER * away, 1.0)) if away > 0 else radius
            distance = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
            near, far = (
                (1.5 - distance / max(min(reach, free), _LEAST_REACH)).clamp(0, 1) for reach in (own, _SPREAD * own)
            )
            alike = (1 - sign * (value - held) / _ALIKE).clamp(0, 1) * far
            shape = torch.maximum(near, _connected(alike, near, x, y))
            held = held + sign * missing / max(_value_at(shape, x, y), 0.1) * shape
    return held


def _near_last(
    logits: Tensor, before: npt.NDArray[np.float32], place: npt.NDArray[np.float64], positive: bool
) -> Tensor:
    """``logits`` near a click at ``place`` (x, y), and those of ``before`` far from it where it corrects their mask."""
    was, (x, y) = before > 0, place
    height, width = before.shape
    if not was.any() or was[_pixel(y, height), _pixel(x, width)] == positive:
        return logits
    reach = max(_LEAST_CHANGE, _CHANGE * _distance_to(was == positive, x, y))
    rows, columns = np.mgrid[:height, :width]
    share = np.clip(3 - 2 * np.hypot(rows - y, columns - x) / reach, 0, 1).astype(np.float32)
    changed = torch.from_numpy(share).to(logits.device)
    kept = torch.from_numpy(np.clip(before, -_SUREST, _SUREST)).to(logits.device)
    return logits * changed + kept * (1 - changed)


def _distance_to(side: npt.NDArray[np.bool_], x: float, y: float) -> float:
    """Pixels from the place (x, y) to the nearest true one of ``side`` bool[h, w]; infinity if there is none."""
    if not side.any():
        return math.inf
    apart = cv2.distanceTransform((~side).astype(np.uint8), cv2.DIST_L2, 5)
    return float(apart[_pixel(y, side.shape[0]), _pixel(x, side.shape[1])])


def _pixel(place: float, most: int) -> int:
    return min(max(round(place), 0), most - 1)


def _connected(alike: Tensor, near: Tensor, x: float, y: float) -> Tensor:
    """``alike`` [h, w], 0 where it is not connected with the place (x, y) by what it or ``near`` is positive in."""
    height, width = alike.shape
    column, row = _pixel(x, width), _pixel(y, height)
    together = ((alike > 0) | (near > 0)).cpu().numpy().view(np.uint8)
    _, parts = cv2.connectedComponents(together, connectivity=4)
    return alike * torch.from_numpy(parts == parts[row, column]).to(alike.device)


def _value_at(logits: Tensor, x: float, y: float) -> float:
    """Bilinear between the four pixels around a place: what the mask's own pixel there gets."""
    height, width = logits.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, upper = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
    corners = logits[upper : upper + 2, left : left + 2].cpu().numpy()
    across = corners @ np.array([1 - (x - left), x - left])[: corners.shape[1]]
    return float(np.array([1 - (y - upper), y - upper])[: len(across)] @ across)


def moved(logits: npt.NDArray[np.float32], before: Box, after: Box) -> npt.NDArray[np.float32]:
    """``logits`` float32[n, n] of the window ``before`` as those of the window ``after``: a mask prompt for it.

    Bilinear, cut to what a mask prompt is sure of; surely no object where ``before`` did not reach. Windows fill the
    network's square input by their longer sides, from its upper left corner.
    """
    side = len(logits)
    old, new = (max(window.width, window.height) / side for window in (before, after))
    along = (np.arange(side) + 0.5) * new
    columns = ((along + after.x0 - before.x0) / old - 0.5).astype(np.float32)
    rows = ((along + after.y0 - before.y0) / old - 0.5).astype(np.float32)
    across, down = np.meshgrid(columns, rows)
    placed = cv2.remap(
        np.clip(logits, -_SUREST, _SUREST),
        across,
        down,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=-_SUREST,
    )
    return np.asarray(placed, np.float32)


@dataclass(frozen=True, eq=False)
class PlacedLogits:
    """Logits at full resolution, of the part of a window outside which all of them are at or below a floor.

    Attributes:
        logits: float32[h, w]; h and w are 0 where the whole window lies below the floor.
        x0, y0: the part's upper left corner in pixels of the window.
    """

    logits: npt.NDArray[np.float32]
    x0: int = 0
    y0: int = 0

    def mask(self, threshold: float, embedding: Embedding) -> Mask:
        """bool[H, W] of the original image: where the logits lie above ``threshold``, within the embedding's window."""
        height, width = embedding.image_size
        mask = np.zeros((height, width), np.bool_)
        x0, y0 = round(embedding.window.x0) + self.x0, round(embedding.window.y0) + self.y0
        y1, x1 = y0 + self.logits.shape[0], x0 + self.logits.shape[1]
        rows, columns = slice(max(y0, 0), min(y1, height)), slice(max(x0, 0), min(x1, width))
        if rows.start < rows.stop and columns.start < columns.stop:
            visible = self.logits[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
            np.greater(visible, threshold, out=mask[rows, columns])
        return mask

    def stability(self, threshold: float) -> float:
        """segment-anything's stability score: IoU of the masks at a raised and a lowered threshold, 0 if both empty."""
        union = np.count_nonzero(self.logits > threshold - STABILITY_OFFSET)
        return np.count_nonzero(self.logits > threshold + STABILITY_OFFSET) / union if union else 0.0


def upsampled(
    low_res: npt.NDArray[np.float32], side: int, input_size: tuple[int, int], size: tuple[int, int], floor: float
) -> PlacedLogits:
    """A network's low-resolution logits at the size of the window that was embedded, only where the mask is.

    The same two bilinear steps as in ``Sam.postprocess_masks``, the same mask: at 4096 x 4096 pixels the logits take
    64 MB, most of them far from any object.

    Args:
        low_res: float32[n, n].
        side: of the network's square input in pixels, a multiple of n.
        input_size: (height, width) of the window within that input.
        size: (height, width) of the window.
        floor: what lies at or below it need not be there.
    """
    above = low_res > floor
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    nothing = PlacedLogits(np.zeros((0, 0), np.float32))
    if not len(rows):
        return nothing
    step = side // len(low_res)
    # Positions in the cut are those in the whole, bit by bit, only where the scale is a power of two.
    if not all(_power_of_two(whole, part) for whole, part in zip(size, input_size, strict=True)):
        at_input = _resized(low_res, (side, side))[: input_size[0], : input_size[1]]
        return PlacedLogits(_resized(at_input, size))
    starts, ends, factors = [], [], []
    for found, whole, part in zip((rows, columns), size, input_size, strict=True):
        starts.append(max(int(found[0]) - _MARGIN, 0))
        ends.append(min(int(found[-1]) + 1 + _MARGIN, len(low_res)))
        factors.append(whole // part)
        if starts[-1] * step >= part:
            return nothing
    cut = low_res[starts[0] : ends[0], starts[1] : ends[1]]
    at_input = _resized(cut, (cut.shape[0] * step, cut.shape[1] * step))
    at_input = at_input[: input_size[0] - starts[0] * step, : input_size[1] - starts[1] * step]
    at_size = _resized(at_input, (at_input.shape[0] * factors[0], at_input.shape[1] * factors[1]))
    return PlacedLogits(at_size, starts[1] * step * factors[1], starts[0] * step * factors[0])


def _resized(logits: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Bilinear, to (height, width)."""
    if logits.shape == size:
        return logits
    return np.asarray(cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _power_of_two(whole: int, part: int) -> bool:
    factor, rest = divmod(whole, part)
    return rest == 0 and factor & (factor - 1) == 0
