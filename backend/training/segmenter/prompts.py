"""Batched prompts and decoding for training the compact segmenter.

``segment_anything``'s decoder takes many prompts of one image; training needs one prompt sequence for each of many
images, so the same submodules are called here with a batch of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from backend.evaluation.next_click import deepest_point, next_click
from backend.pipeline.segmentation.sam import MASK_PROMPT_LOGIT

__all__ = [
    "BatchPrompts",
    "PromptTarget",
    "damaged_logits",
    "decode_batch",
    "encode",
    "interior_point",
    "upsampled",
    "with_corrective_clicks",
]


class PromptTarget(Protocol):
    """An object to be segmented, in pixels of the network's square input of side S."""

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """uint8[S, S], 0 or 1."""

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """float32[4], the box prompt (x0, y0, x1, y1)."""

    @property
    def full_area(self) -> float:
        """Pixels of the whole object, parts outside the input included."""


@dataclass(frozen=True, eq=False)
class BatchPrompts:
    """Prompts of a batch, all samples alike in kind and number; coordinates are pixels of the window.

    Attributes:
        points: float32[B, N, 2], N may be 0.
        labels: int64[B, N].
        boxes: float32[B, 4] or None.
        logits: float32[B, h, w] mask prompts or None.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor | None = None
    logits: Tensor | None = None


def encode(sam: Sam, images: npt.NDArray[np.uint8]) -> Tensor:
    """Features [B, C, h, w] of windows uint8[B, S, S, 3]."""
    pixels = torch.from_numpy(images).to(sam.pixel_mean.device).permute(0, 3, 1, 2).float()
    pixels = ((pixels - sam.pixel_mean) / sam.pixel_std).contiguous(memory_format=torch.channels_last)
    features: Tensor = sam.image_encoder(pixels)
    return features


def decode_batch(
    sam: Sam, features: Tensor, prompts: BatchPrompts, targets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Low-resolution logits float32[B, h, w] and predicted IoU float32[B] for features [B, C, h', w'].

    A lone click is ambiguous: of a decoder with several mask tokens it gets, as in use, the mask with the best
    predicted IoU, or in training the one that fits ``targets`` float32[B, S, S] best. Every other prompt gets the
    single mask.
    """
    decoder, batch, device = sam.mask_decoder, len(features), features.device
    boxes, given = (None if value is None else value.to(device) for value in (prompts.boxes, prompts.logits))
    clicks = prompts.points.shape[1]
    with torch.autocast(device.type, enabled=False):  # positions need float32
        sparse, dense = sam.prompt_encoder(
            points=(prompts.points.to(device), prompts.labels.to(device)) if clicks else None,
            boxes=boxes,
            masks=None if given is None else given[:, None],
        )
        position = sam.prompt_encoder.get_dense_pe().expand(batch, -1, -1, -1)
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([output_tokens.expand(batch, -1, -1), sparse], dim=1)
    hidden, image = decoder.transformer(features + dense, position, tokens)
    upscaled = decoder.output_upscaling(image.transpose(1, 2).reshape(features.shape))
    several = decoder.num_multimask_outputs > 0 and clicks == 1 and boxes is None and given is None
    outputs = range(1, decoder.num_mask_tokens) if several else range(1)
    weights = torch.stack([decoder.output_hypernetworks_mlps[i](hidden[:, 1 + i]) for i in outputs], dim=1)
    logits = torch.einsum("bmc,bchw->bmhw", weights, upscaled).float()
    predicted_iou = decoder.iou_prediction_head(hidden[:, 0])[:, outputs.start : outputs.stop].float()
    if not several:
        return logits[:, 0], predicted_iou[:, 0]
    fit = predicted_iou if targets is None else _overlap(logits, targets)
    best, rows = fit.detach().argmax(dim=1), torch.arange(batch, device=device)
    return logits[rows, best], predicted_iou[rows, best]


def upsampled(logits: Tensor, side: int) -> Tensor:
    """Logits [B, h, w] at the input's resolution [B, side, side]."""
    return functional.interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def _overlap(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU [B, M] of the masks of ``logits`` [B, M, h, w] with ``targets`` [B, S, S], at the logits' resolution."""
    wanted = functional.interpolate(targets[:, None], logits.shape[-2:], mode="area") > 0.5
    found = logits > 0
    union = (found | wanted).sum((2, 3))
    return (found & wanted).sum((2, 3)) / union.clamp(min=1)


def interior_point(mask: npt.NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float]:
    """A point well inside ``mask``, like the foreground points of CFPG; the window's middle for an empty mask."""
    if not mask.any():
        return mask.shape[1] / 2, mask.shape[0] / 2
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= rng.uniform(0.1, 1.0) * depth.max())
    chosen = int(rng.integers(len(rows)))
    return float(columns[chosen]), float(rows[chosen])


def with_corrective_clicks(
    prompts: BatchPrompts,
    predicted: npt.NDArray[np.bool_],
    targets: npt.NDArray[np.bool_],
    logits: Tensor | None,
    keep_box: bool,
) -> BatchPrompts:
    """``prompts`` and one more click per sample, where ``predicted`` bool[B, S, S] is most wrong about ``targets``.

    A perfect mask gets a positive click in its deepest point. ``logits`` become the mask prompt.
    """
    clicks = np.zeros((len(targets), 1, 2), np.float32)
    labels = np.ones((len(targets), 1), np.int64)
    for index, (mask, target) in enumerate(zip(predicted, targets, strict=True)):
        click = next_click(mask, target)
        if click is not None:
            clicks[index, 0], labels[index, 0] = (click.x, click.y), int(click.positive)
        else:
            clicks[index, 0] = deepest_point(target) if target.any() else target.shape[0] / 2
            labels[index, 0] = int(target.any())
    return BatchPrompts(
        points=torch.cat([prompts.points, torch.from_numpy(clicks)], dim=1),
        labels=torch.cat([prompts.labels, torch.from_numpy(labels)], dim=1),
        boxes=prompts.boxes if keep_box else None,
        logits=logits,
    )


def damaged_logits(
    masks: npt.NDArray[np.bool_], side: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], Tensor]:
    """Damaged copies of ``masks`` bool[B, S, S] and the mask prompts float32[B, side, side] made from them.

    Stands for regions that an annotator wants corrected: too large, too small, shifted, cut, or with a bite.
    """
    damaged = np.zeros_like(masks)
    for index, mask in enumerate(masks):
        extent = max(2.0, float(np.sqrt(mask.sum())))
        kernel = np.ones((1 + int(rng.integers(1 + int(extent) // 6)),) * 2, np.uint8)
        operation = cv2.dilate if rng.random() < 0.5 else cv2.erode
        shift = np.array([[1, 0, 0.0], [0, 1, 0.0]]) + np.column_stack(
            [np.zeros((2, 2)), rng.normal(0, extent / 25, 2)]
        )
        copy = cv2.warpAffine(operation(mask.astype(np.uint8), kernel), shift, mask.shape[::-1])
        for _ in range(int(rng.integers(0, 3))):
            x, y = interior_point(mask, rng)
            radius = int(extent * rng.uniform(0.08, 0.35))
            x, y = x + rng.normal(0, extent / 3), y + rng.normal(0, extent / 3)
            cv2.circle(copy, (int(x), int(y)), radius, int(rng.integers(2)), -1)
        damaged[index] = copy > 0
    resized = [cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for mask in damaged]
    return damaged, torch.from_numpy((np.stack(resized) * 2 - 1) * MASK_PROMPT_LOGIT).float()
