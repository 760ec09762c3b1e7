"""A window of an image as a SAM sees it: which one, how prompts get into its input, how logits become a mask.

Three frames: pixels of the image, the network's square input, and its low-resolution logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from backend.pipeline.types import Box, Embedding, Mask, Prompts
from dataset_tools.errors import PromptError

__all__ = [
    "STABILITY_OFFSET",
    "PlacedLogits",
    "PromptTensors",
    "click_places",
    "half_turned",
    "prompt_tensors",
    "upsampled",
    "whole_image",
    "window_for",
    "window_size",
]

WINDOW_FACTOR = 1.75
MINIMUM_WINDOW = 40
STABILITY_OFFSET = 1.0
"""Distance of the stability score's logit thresholds from the mask threshold (as in SAM's mask generator)."""
_MARGIN = 2
"""Low-resolution pixels around what is kept: one that interpolation reaches, one that takes the cut's own border."""


class PromptTensors(NamedTuple):
    """Prompts as a network takes them, None where there are none: in pixels of its square input.

    Attributes:
        points: float32[1, N, 2], (x, y).
        labels: int32[1, N], 1 foreground, 0 background.
        box: float32[1, 4], (x0, y0, x1, y1).
        logits: float32[1, 1, h, w] of an earlier mask.
    """

    points: Tensor | None
    labels: Tensor | None
    box: Tensor | None
    logits: Tensor | None


def window_for(box: Box, image_size: tuple[int, int]) -> Box:
    """The square window to embed for an object in ``box``: centred on it, 1.75 times its longer side.

    Box sides that are 12 % off still leave the object inside. Corners are whole pixels; a window may reach over the
    image's border, except that one larger than the image is moved and cut to no more than a square around the image.

    Args:
        box: (x0, y0, x1, y1) in pixels.
        image_size: (height, width) of the image in pixels.
    """
    height, width = image_size
    side = max(WINDOW_FACTOR * max(box.x1 - box.x0, box.y1 - box.y0), MINIMUM_WINDOW)
    side = math.ceil(min(side, max(height, width)))
    x0, y0 = round((box.x0 + box.x1) / 2 - side / 2), round((box.y0 + box.y1) / 2 - side / 2)
    if side >= width:
        x0 = (width - side) // 2
    if side >= height:
        y0 = (height - side) // 2
    return Box(float(x0), float(y0), float(x0 + side), float(y0 + side))


def whole_image(_box: Box, image_size: tuple[int, int]) -> Box:
    """The whole image of (height, width) pixels, whatever object is looked for."""
    return Box(0.0, 0.0, float(image_size[1]), float(image_size[0]))


def prompt_tensors(sam: Sam, transform: ResizeLongestSide, embedding: Embedding, prompts: Prompts) -> PromptTensors:
    """Prompts of the image as the network takes them.

    Raises:
        PromptError: see ``SamSegmenter.decode``.
    """
    if not len(prompts.points) and prompts.box is None and prompts.mask_logits is None:
        raise PromptError("a prompt is needed: at least one point, a box, or mask logits")
    size = window_size(embedding.window)
    origin = np.array(embedding.window[:2])
    device = sam.device
    points = labels = box = logits = None
    if len(prompts.points):
        kept = _kept_points(embedding, prompts)
        if kept.any():
            inside = transform.apply_coords(prompts.points[kept] - origin, size)
            points = torch.as_tensor(inside, dtype=torch.float, device=device)[None]
            labels = torch.as_tensor(prompts.point_labels[kept], dtype=torch.int, device=device)[None]
    if prompts.box is not None:
        x0, y0, x1, y1 = prompts.box
        if not np.isfinite(prompts.box).all() or x1 <= x0 or y1 <= y0:
            raise PromptError(f"the box {tuple(prompts.box)} is empty: x0 < x1 and y0 < y1 are needed, in pixels")
        placed = np.array(prompts.box) - np.tile(origin, 2)
        if (placed[2:] <= 0).any() or (placed[:2] >= size[::-1]).any():
            raise PromptError(f"the box {tuple(prompts.box)} lies beside the embedded window {tuple(embedding.window)}")
        corners = transform.apply_boxes(placed, size)
        box = torch.as_tensor(corners, dtype=torch.float, device=device)
    if prompts.mask_logits is not None:
        expected = tuple(sam.prompt_encoder.mask_input_size)
        if prompts.mask_logits.shape != expected or not np.isfinite(prompts.mask_logits).all():
            raise PromptError(
                f"mask logits must be finite float32{list(expected)} for this model, got shape "
                f"{list(prompts.mask_logits.shape)}"
            )
        logits = torch.as_tensor(prompts.mask_logits, dtype=torch.float, device=device)[None, None]
    if points is None and box is None and logits is None:
        raise PromptError("every point is a negative one outside the embedded window: a positive point is needed")
    return PromptTensors(points, labels, box, logits)


def half_turned(given: PromptTensors, side: float, pixel: float) -> PromptTensors:
    """The same prompts for an input of ``side`` pixels that is turned by half.

    Clicks name pixels of the image, each ``pixel`` wide in the input, by their upper left corners; boxes name borders.
    """
    points, labels, box, logits = given
    return PromptTensors(
        None if points is None else (side - pixel - points).clamp(0, side),
        labels,
        None if box is None else (side - box.view(1, 2, 2)).flip(1).view(1, 4),
        None if logits is None else logits.flip(-2, -1),
    )


def window_size(window: Box) -> tuple[int, int]:
    """(height, width) of a window in pixels."""
    x0, y0, x1, y1 = window
    return round(y1 - y0), round(x1 - x0)


def click_places(
    embedding: Embedding, prompts: Prompts, transform: ResizeLongestSide, scale: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Where the clicks inside the window lie in the logits, float64[N, 2] (x, y), and their labels int64[N].

    A click speaks of the pixel of the image that it lies in: its place is that pixel's centre.

    Args:
        embedding: of the window.
        prompts: clicks in pixels of the image.
        transform: from the window to the network's input.
        scale: low-resolution pixels per input pixel.

    Raises:
        PromptError: see ``SamSegmenter.decode``.
    """
    kept = _kept_points(embedding, prompts)
    centres = np.floor(prompts.points[kept].astype(np.float64)) + 0.5 - np.array(embedding.window[:2])
    places = transform.apply_coords(centres, window_size(embedding.window)) * scale - 0.5
    return places, prompts.point_labels[kept]


def _kept_points(embedding: Embedding, prompts: Prompts) -> npt.NDArray[np.bool_]:
    """bool[N]: points inside the window; raises PromptError for a point that cannot be served."""
    height, width = embedding.image_size
    x, y = prompts.points.T
    if not ((x >= 0) & (y >= 0) & (x <= width) & (y <= height)).all():
        raise PromptError(f"points {prompts.points.tolist()} must lie inside the image of {width} x {height} pixels")
    if not np.isin(prompts.point_labels, (0, 1)).all():
        raise PromptError(f"point labels must be 1 (foreground) or 0 (background), got {prompts.point_labels.tolist()}")
    x0, y0, x1, y1 = embedding.window
    inside = (x >= x0) & (y >= y0) & (x <= x1) & (y <= y1)
    if (~inside & (prompts.point_labels == 1)).any():
        raise PromptError(
            f"a positive point of {prompts.points.tolist()} lies outside the embedded window "
            f"{tuple(embedding.window)}: embed a larger window"
        )
    return np.asarray(inside)


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
