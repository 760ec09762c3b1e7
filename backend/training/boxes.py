"""How well predicted boxes fit, as a quantity that can be trained on."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["generalized_iou"]

_EPSILON = 1e-6


def generalized_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """GIoU of boxes float[..., 4] (x0, y0, x1, y1), broadcast against one another; 1e-6 steadies both quotients."""
    overlap = (torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])).clamp(
        min=0
    )
    hull = (torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(boxes[..., :2], others[..., :2])).clamp(
        min=0
    )
    intersection, enclosing = overlap.prod(-1), hull.prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, others)]
    union = areas[0] + areas[1] - intersection
    iou = (intersection + _EPSILON) / (union + _EPSILON)
    return iou - (enclosing - union + _EPSILON) / (enclosing + _EPSILON)
