"""Clicks made to hold: what the compact decoder's answer lacks of what an annotator said.

The compact decoder has seen few thin parts; a click on a wing tip that changes nothing would leave an annotator no way
to finish, and one on a sliver may change the other end of the object. segment-anything's own models are used as
published, without this.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["hold_clicks"]

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
