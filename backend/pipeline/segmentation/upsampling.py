"""``Sam.postprocess_masks`` with OpenCV, only where the mask is: the same two bilinear steps, the same mask.

At 4096 x 4096 pixels the logits take 64 MB, most of them far from any object.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["PlacedLogits", "upsampled"]

_MARGIN = 2
"""Low-resolution pixels around what is kept: one that interpolation reaches, one that takes the cut's own border."""


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


def upsampled(
    low_res: npt.NDArray[np.float32], side: int, input_size: tuple[int, int], size: tuple[int, int], floor: float
) -> PlacedLogits:
    """A network's low-resolution logits at the size of the window that was embedded.

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
