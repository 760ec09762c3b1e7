"""Targets and losses of the compact grounder's detector (centre heat as in TTFNet, GIoU, auxiliary masks)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from backend.pipeline.grounding.compact.detections import cell_boxes
from backend.pipeline.grounding.compact.network import STRIDES, DetectorOutput
from backend.training.boxes import generalized_iou
from backend.training.grounder.augmentation import SEMANTIC_STRIDE, SHAPELESS, DetectorSample

LEVEL_SIDES = ((0.0, 48.0), (28.0, 120.0), (80.0, float("inf")))
"""Longer sides in pixels of the boxes that each level of ``STRIDES`` learns; overlapping, so that no size is new."""
_SPREAD = 0.54
"""Share of a box's sides that its Gaussian covers (TTFNet's alpha)."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets of a batch of B samples, one tensor per level of ``STRIDES``.

    Attributes:
        heat: [B, C, h, w] in [0, 1], 1 at the cell of an object's centre.
        boxes: [B, 4 * G, h, w], the boxes that the cell should report, in pixels (``DetectorOutput.groups``).
        weight: [B, G, h, w], the cell's share in its object's box loss; sums to 1 over an object, 0 elsewhere.
        background: [B, C, h, w], weight of the negative heat loss.
        semantic: uint8[B, H/4, W/4], category index, ``SHAPELESS`` or ``UNLABELLED``.
        objects: number of objects, summed over the levels that learn them.
    """

    heat: list[Tensor]
    boxes: list[Tensor]
    weight: list[Tensor]
    background: list[Tensor]
    semantic: Tensor
    objects: int

    def to(self, device: torch.device) -> Targets:
        """The same on ``device``."""

        def moved(maps: list[Tensor]) -> list[Tensor]:
            return [values.to(device, non_blocking=True) for values in maps]

        return Targets(
            moved(self.heat),
            moved(self.boxes),
            moved(self.weight),
            moved(self.background),
            self.semantic.to(device, non_blocking=True),
            self.objects,
        )


def make_targets(samples: Sequence[DetectorSample], categories: int, groups: Sequence[int] = ()) -> Targets:
    """Targets of ``samples`` (all of one size, a multiple of 32) for ``categories`` heat channels.

    ``groups`` are those of ``DetectorOutput``.
    """
    groups = groups or [0] * categories
    of_a_cell = max(groups) + 1
    size = samples[0].image.shape[:2]
    heats, boxes, weights, backgrounds = [], [], [], []
    objects = 0
    background = torch.from_numpy(np.stack([sample.background for sample in samples]))
    for stride, (smallest, largest) in zip(STRIDES, LEVEL_SIDES, strict=True):
        height, width = size[0] // stride, size[1] // stride
        heat = np.zeros((len(samples), categories, height, width), np.float32)
        box = np.zeros((len(samples), 4 * of_a_cell, height, width), np.float32)
        weight = np.zeros((len(samples), of_a_cell, height, width), np.float32)
        for number, sample in enumerate(samples):
            areas = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(axis=1)
            for k in np.argsort(-areas):  # small boxes last: where boxes overlap, the small one keeps its cells
                x0, y0, x1, y1 = sample.boxes[k].tolist()
                if not smallest <= max(x1 - x0, y1 - y0) < largest:
                    continue
                objects += 1
                channels = [sample.labels[k], *([sample.kinds[k]] if sample.kinds[k] >= 0 else [])]
                own = groups[sample.labels[k]]
                maps = box[number, 4 * own : 4 * own + 4], weight[number, own]
                _draw([heat[number, c] for c in channels], *maps, (x0, y0, x1, y1), stride)
        heats.append(torch.from_numpy(heat))
        boxes.append(torch.from_numpy(box))
        weights.append(torch.from_numpy(weight))
        factor = stride // SEMANTIC_STRIDE
        # A cell that is partly "say nothing" says nothing.
        backgrounds.append(-functional.max_pool2d(-background, factor) if factor > 1 else background)
    semantic = torch.from_numpy(np.stack([sample.semantic for sample in samples]))
    return Targets(heats, boxes, weights, backgrounds, semantic, objects)


def _draw(
    heats: Sequence[np.ndarray],  # type: ignore[type-arg]
    boxes: np.ndarray,  # type: ignore[type-arg]
    weights: np.ndarray,  # type: ignore[type-arg]
    box: Sequence[float],
    stride: int,
) -> None:
    """Draw one object into one level's arrays: each of ``heats`` [h, w], [4, h, w] and [h, w], all in place."""
    height, width = weights.shape
    x0, y0, x1, y1 = (value / stride for value in box)
    center_x, center_y = (x0 + x1) / 2 - 0.5, (y0 + y1) / 2 - 0.5  # in cells, whose centres are at whole numbers
    cell_x, cell_y = (min(max(round(c), 0), n - 1) for c, n in ((center_x, width), (center_y, height)))
    sigma_x, sigma_y = max((x1 - x0) * _SPREAD / 6, 0.35), max((y1 - y0) * _SPREAD / 6, 0.35)
    reach_x, reach_y = max(1, int(sigma_x * 3)), max(1, int(sigma_y * 3))
    left, right = max(0, cell_x - reach_x), min(width, cell_x + reach_x + 1)
    top, bottom = max(0, cell_y - reach_y), min(height, cell_y + reach_y + 1)
    gauss_x = np.exp(-0.5 * ((np.arange(left, right) - cell_x) / sigma_x) ** 2)
    gauss_y = np.exp(-0.5 * ((np.arange(top, bottom) - cell_y) / sigma_y) ** 2)
    gauss = (gauss_y[:, None] * gauss_x[None, :]).astype(np.float32)
    gauss[gauss < 0.01] = 0
    for heat in heats:
        patch = heat[top:bottom, left:right]
        np.maximum(patch, gauss, out=patch)
    share = gauss / gauss.sum()
    chosen = gauss > 0
    weights[top:bottom, left:right][chosen] = share[chosen]
    for side in range(4):
        boxes[side, top:bottom, left:right][chosen] = box[side]


def losses(output: DetectorOutput, targets: Targets) -> dict[str, Tensor]:
    """``heat``, ``box`` and ``semantic`` losses (scalars), each a mean over objects or positions."""
    count = max(1, targets.objects)
    heat = torch.zeros((), device=targets.semantic.device)
    box = torch.zeros_like(heat)
    for level, stride in enumerate(STRIDES):
        heat = heat + focal(output.heat[level].float(), targets.heat[level], targets.background[level]).sum()
        weight = targets.weight[level].flatten(0, 1)
        chosen = weight > 0
        if chosen.any():
            height, width = weight.shape[1:]
            sides, boxes = (maps.reshape(-1, 4, height, width) for maps in (output.sides[level], targets.boxes[level]))
            predicted = cell_boxes(sides.float(), stride).permute(0, 2, 3, 1)[chosen]
            wanted = boxes.permute(0, 2, 3, 1)[chosen]
            box = box + (weight[chosen] * (1 - generalized_iou(predicted, wanted))).sum()
    result = {"heat": heat / count, "box": box / count}
    if output.semantic is not None:
        categories = output.semantic.shape[1]
        labels = targets.semantic.long().clamp(max=categories)
        wanted = functional.one_hot(labels, categories + 1)[..., :categories].permute(0, 3, 1, 2).float()
        weight = targets.background[0][:, :categories].maximum(wanted)
        weight = weight * (targets.semantic != SHAPELESS)[:, None]
        logits = output.semantic.float()
        loss = functional.binary_cross_entropy_with_logits(
            logits, wanted, weight=weight * (1 + 2 * wanted), reduction="sum"
        )
        result["semantic"] = loss / (len(logits) * logits.shape[2] * logits.shape[3])
    return result


def focal(logits: Tensor, target: Tensor, background: Tensor) -> Tensor:
    """CenterNet's penalty-reduced focal loss, element by element; ``background`` weighs the negatives."""
    probability = torch.sigmoid(logits)
    positive = target >= 0.999
    negative_loss = functional.softplus(logits) * probability**2 * (1 - target) ** 4 * background
    positive_loss = functional.softplus(-logits) * (1 - probability) ** 2
    return torch.where(positive, positive_loss, negative_loss)
