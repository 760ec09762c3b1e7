"""Prompts in pixels of an image as tensors in the input frame of a SAM; what cannot work is refused here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from backend.pipeline.types import Box, Embedding, Prompts
from dataset_tools.errors import PromptError

__all__ = ["prompt_tensors", "window_size"]


def prompt_tensors(
    sam: Sam, transform: ResizeLongestSide, embedding: Embedding, prompts: Prompts
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Points [1, N, 2], labels [1, N], box [1, 4] in the input frame, logits [1, 1, h, w]; None where absent.

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
        if not np.isfinite(prompts.box).all() or prompts.box.area <= 0:
            raise PromptError(f"the box {tuple(prompts.box)} is empty: x0 < x1 and y0 < y1 are needed, in pixels")
        overlap = Box(*(prompts.box - np.tile(origin, 2))).clip(size[1], size[0])
        if overlap.area <= 0:
            raise PromptError(f"the box {tuple(prompts.box)} lies beside the embedded window {tuple(embedding.window)}")
        corners = transform.apply_boxes(np.array(prompts.box) - np.tile(origin, 2), size)
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
    return points, labels, box, logits


def window_size(window: Box) -> tuple[int, int]:
    """(height, width) of a window in pixels."""
    return round(window.height), round(window.width)


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
