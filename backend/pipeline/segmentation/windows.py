"""A window of an image as a SAM sees it: which one, and how prompts get into its input.

Three frames: pixels of the image, the network's square input, and its low-resolution logits (``logits`` beside this).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from backend.pipeline.types import Box, Embedding, Prompts
from dataset_tools.errors import PromptError

__all__ = [
    "WINDOW_FACTOR",
    "PromptTensors",
    "half_turned",
    "prompt_tensors",
    "whole_image",
    "window_for",
]

WINDOW_FACTOR = 1.75
MINIMUM_WINDOW = 40


class PromptTensors(NamedTuple):
    """Prompts as a network takes them, None where there are none, in pixels of its square input; its clicks' places.

    Attributes:
        points: float32[1, N, 2], (x, y).
        labels: int32[1, N], 1 foreground, 0 background.
        box: float32[1, 4], (x0, y0, x1, y1).
        logits: float32[1, 1, h, w] of an earlier mask.
        places: float64[N, 2], where the clicks lie in the logits: (x, y), whole numbers at the pixels' centres. A click
            speaks of the pixel of the image that it lies in: its place is that pixel's centre.
        signs: int64[N], 1 foreground, 0 background.
        size: (height, width) of the window in pixels.
    """

    points: Tensor | None
    labels: Tensor | None
    box: Tensor | None
    logits: Tensor | None
    places: npt.NDArray[np.float64]
    signs: npt.NDArray[np.int64]
    size: tuple[int, int]


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
    x0, y0, x1, y1 = embedding.window
    size = round(y1 - y0), round(x1 - x0)
    origin = np.array(embedding.window[:2])
    device = sam.device
    points = labels = box = logits = None
    kept = _kept_points(embedding, prompts)
    inside, signs = prompts.points[kept], prompts.point_labels[kept]
    if len(inside):
        points = torch.as_tensor(transform.apply_coords(inside - origin, size), dtype=torch.float, device=device)[None]
        labels = torch.as_tensor(signs, dtype=torch.int, device=device)[None]
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
    scale = sam.prompt_encoder.mask_input_size[0] / float(transform.target_length)
    centres = np.floor(inside.astype(np.float64)) + 0.5 - origin
    places = transform.apply_coords(centres, size) * scale - 0.5
    return PromptTensors(points, labels, box, logits, places, signs, size)


def half_turned(given: PromptTensors, side: int) -> PromptTensors:
    """The same prompts of a square window for an input of ``side`` pixels that is turned by half.

    Clicks name pixels of the image, which are larger in the input, by their upper left corners; boxes name borders.
    The clicks' places stay: they are those in the logits of the window as it is.
    """
    pixel = side / given.size[0]
    points, box, logits = given.points, given.box, given.logits
    return given._replace(
        points=None if points is None else (side - pixel - points).clamp(0, side),
        box=None if box is None else (side - box.view(1, 2, 2)).flip(1).view(1, 4),
        logits=None if logits is None else logits.flip(-2, -1),
    )


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
