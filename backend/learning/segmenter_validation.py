"""Validation of the compact segmenter in its own windows: fast, on fixed prompts, without augmentation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from backend.learning.segmenter_prompts import BatchPrompts, decode_batch, encode, with_corrective_clicks
from backend.learning.segmenter_samples import Sample, Scene, TrainingObject, plain_sample
from dataset_tools.geometry import Box

__all__ = ["validate"]

JITTER = 0.1
CLICKS = 3


@torch.no_grad()
def validate(sam: Sam, scenes: list[Scene], seed: int, batch: int = 32) -> dict[str, float]:
    """Mean IoU over all objects of ``scenes`` by prompt, in windows that follow from the true or jittered box.

    Returns:
        ``score``, the criterion for the best weights: mean of the box, jittered, first- and third-click figures;
        ``box_iou`` (true boxes), ``jittered_iou`` (sides up to 10 % off), ``click_1_iou`` ... ``click_3_iou`` (no box,
        corrective clicks), ``iou_error`` (mean absolute error of the predicted IoU for boxes),
        ``<category>_iou`` for true boxes.
    """
    with torch.autocast("cpu", torch.bfloat16):
        return _validate(sam, scenes, np.random.default_rng(seed), batch)


def _validate(sam: Sam, scenes: list[Scene], rng: np.random.Generator, batch: int) -> dict[str, float]:
    pairs = [(scene, target) for scene in scenes for target in scene.objects]
    ious: dict[str, list[float]] = {}
    size = sam.image_encoder.img_size
    for start in range(0, len(pairs), batch):
        chosen = pairs[start : start + batch]
        exact = [plain_sample(scene, target, target.box, size) for scene, target in chosen]
        loose = [plain_sample(scene, target, _jittered(target, rng), size) for scene, target in chosen]
        features = _features(sam, exact)
        boxes = torch.from_numpy(np.stack([sample.box for sample in exact]))
        none = BatchPrompts(torch.zeros(len(chosen), 0, 2), torch.zeros(len(chosen), 0, dtype=torch.int64))
        values, masks, predicted_iou, _ = _decode(sam, features, BatchPrompts(none.points, none.labels, boxes), exact)
        ious.setdefault("box_iou", []).extend(values)
        ious.setdefault("iou_error", []).extend(np.abs(predicted_iou - values))
        for value, (_, target) in zip(values, chosen, strict=True):
            ious.setdefault(f"{target.category}_iou", []).append(value)
        boxes = torch.from_numpy(np.stack([sample.box for sample in loose]))
        values, _, _, _ = _decode(sam, _features(sam, loose), BatchPrompts(none.points, none.labels, boxes), loose)
        ious.setdefault("jittered_iou", []).extend(values)
        targets = np.stack([sample.mask for sample in exact]).astype(bool)
        prompts, masks, logits = none, np.zeros_like(targets), None
        for number in range(1, CLICKS + 1):
            prompts = with_corrective_clicks(prompts, masks, targets, logits, keep_box=False)
            values, masks, _, logits = _decode(sam, features, prompts, exact)
            ious.setdefault(f"click_{number}_iou", []).extend(values)
    means = {name: float(np.mean(values)) for name, values in ious.items()}
    used = ("box_iou", "jittered_iou", "click_1_iou", "click_3_iou")
    return {"score": float(np.mean([means[name] for name in used])), **means}


def _jittered(target: TrainingObject, rng: np.random.Generator) -> Box:
    x0, y0, x1, y1 = target.box
    left, right = rng.uniform(-JITTER, JITTER, 2) * target.box.width
    top, bottom = rng.uniform(-JITTER, JITTER, 2) * target.box.height
    return Box(x0 + left, y0 + top, x1 + right, y1 + bottom)


def _features(sam: Sam, samples: list[Sample]) -> Tensor:
    return encode(sam, np.stack([sample.image for sample in samples])).float()


def _decode(
    sam: Sam, features: Tensor, prompts: BatchPrompts, samples: list[Sample]
) -> tuple[list[float], npt.NDArray[np.bool_], npt.NDArray[np.float32], Tensor]:
    low, predicted_iou = decode_batch(sam, features, prompts)
    size = samples[0].mask.shape
    masks = (functional.interpolate(low[:, None], size, mode="bilinear", align_corners=False)[:, 0] > 0).numpy()
    values = []
    for mask, sample in zip(masks, samples, strict=True):
        target = sample.mask.astype(bool)
        hit = int((mask & target).sum())
        union = int(mask.sum()) + max(sample.full_area, float(target.sum())) - hit
        values.append(hit / max(1.0, union))
    return values, masks, predicted_iou.numpy(), low
