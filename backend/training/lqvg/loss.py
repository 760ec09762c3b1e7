"""LQVG's matcher and losses: one target per image, every decoder layer matched and scored on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from backend.training.boxes import generalized_iou

__all__ = ["LOSS_WEIGHTS", "grounding_losses", "match", "to_corners", "total_loss"]

LOSS_WEIGHTS = {"loss_ce": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0}
"""Weights of the losses, and of the corresponding costs in the matcher."""

_ALPHA = 0.25
_GAMMA = 2.0


def to_corners(boxes: Tensor) -> Tensor:
    """float[..., 4] (cx, cy, w, h) -> (x0, y0, x1, y1)."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((center - half, center + half), dim=-1)


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: Tensor) -> Tensor:
    """The query that costs least for each image's target.

    Args:
        logits: float[B, Q], raw.
        boxes: float[B, Q, 4], (cx, cy, w, h) in 0..1.
        targets: float[B, 4], likewise.

    Returns:
        int64[B], indices into the queries.
    """
    probability = logits.sigmoid()
    positive = _ALPHA * (1 - probability) ** _GAMMA * -(probability + 1e-8).log()
    negative = (1 - _ALPHA) * probability**_GAMMA * -(1 - probability + 1e-8).log()
    targets = targets[:, None]
    cost = (
        LOSS_WEIGHTS["loss_ce"] * (positive - negative)
        + LOSS_WEIGHTS["loss_bbox"] * (boxes - targets).abs().sum(-1)
        - LOSS_WEIGHTS["loss_giou"] * generalized_iou(to_corners(boxes), to_corners(targets))
    )
    return cost.argmin(dim=1)


def grounding_losses(outputs: Mapping[str, Any], targets: Tensor, boxes_per_process: float) -> dict[str, Tensor]:
    """The unweighted losses of every decoder layer.

    Args:
        outputs: of ``LqvgNetwork``.
        targets: float32[B, 4], (cx, cy, w, h) in 0..1 of the padded network input.
        boxes_per_process: number of targets, averaged over the processes of a distributed run.

    Returns:
        ``loss_ce``, ``loss_bbox``, ``loss_giou`` of the last layer, and ``loss_ce_0`` ... of the earlier ones.
    """
    losses = {}
    for suffix, layer in [("", outputs), *((f"_{i}", aux) for i, aux in enumerate(outputs["aux_outputs"]))]:
        logits, boxes = layer["pred_logits"][:, 0, :, 0], layer["pred_boxes"][:, 0]
        chosen = match(logits, boxes, targets)
        rows = torch.arange(len(chosen), device=chosen.device)
        box = boxes[rows, chosen]
        is_target = functional.one_hot(chosen, logits.shape[1]).to(logits.dtype)
        probability = logits.sigmoid()
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, is_target, reduction="none")
        miss = is_target * (1 - probability) + (1 - is_target) * probability
        alpha = is_target * _ALPHA + (1 - is_target) * (1 - _ALPHA)
        losses[f"loss_ce{suffix}"] = (alpha * miss**_GAMMA * cross_entropy).sum() / boxes_per_process
        losses[f"loss_bbox{suffix}"] = (box - targets).abs().sum() / boxes_per_process
        giou = generalized_iou(to_corners(box), to_corners(targets))
        losses[f"loss_giou{suffix}"] = (1 - giou).sum() / boxes_per_process
    return losses


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The weighted sum that is minimised."""
    weighted = [value * LOSS_WEIGHTS["_".join(name.split("_")[:2])] for name, value in losses.items()]
    return torch.stack(weighted).sum()
