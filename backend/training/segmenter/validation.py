"""Validation of the compact segmenter in its own windows: fast, on fixed prompts, without augmentation.

Also calibrates the predicted IoU: a network is surer of itself on scenes it has seen, so the last layer of the IoU head
is corrected by a straight line fitted on validation scenes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from backend.pipeline.devices import in_bfloat16
from backend.training.segmenter.prompts import (
    BatchPrompts,
    PromptTarget,
    decode_batch,
    encode,
    upsampled,
    with_corrective_clicks,
)
from backend.training.segmenter.samples import TrainingObject, TrainingScene, plain_sample
from dataset_tools import atomic
from dataset_tools.geometry import Box

__all__ = [
    "Scores",
    "calibrate_predicted_iou",
    "calibrated",
    "categories_of",
    "jittered",
    "plot_reliability",
    "score_boxes",
    "score_clicks",
    "score_prompts",
    "summary",
    "validate",
]

JITTER = 0.1
CLICKS = 3

Scores = npt.NDArray[np.float64]
"""float64[N, 2]: IoU and predicted IoU of N objects."""


def validate(sam: Sam, scenes: list[TrainingScene], seed: int) -> dict[str, float]:
    """Means over all objects of ``scenes`` by prompt.

    Returns:
        ``score``, the criterion for the best weights: mean of the box, jittered, first- and third-click figures;
        ``box_iou`` (true boxes), ``jittered_iou`` (sides up to 10 % off), ``click_1_iou`` ... ``click_3_iou`` (no box,
        corrective clicks), ``iou_error`` (mean absolute error of the predicted IoU for boxes),
        ``<category>_iou`` for true boxes.
    """
    return summary(score_prompts(sam, scenes, seed), categories_of(scenes))


def categories_of(scenes: Sequence[TrainingScene]) -> npt.NDArray[np.str_]:
    """The category of every object of ``scenes`` in turn, as ``score_prompts`` goes through them."""
    return np.array([target.category for scene in scenes for target in scene.objects])


def summary(scores: dict[str, Scores], categories: npt.NDArray[np.str_]) -> dict[str, float]:
    """What ``validate`` returns, from the scores of objects of the given categories."""
    means = {f"{kind}_iou": float(values[:, 0].mean()) for kind, values in scores.items()}
    means["score"] = float(np.mean([means[f"{kind}_iou"] for kind in ("box", "jittered", "click_1", "click_3")]))
    means["iou_error"] = float(np.abs(scores["box"][:, 0] - scores["box"][:, 1]).mean())
    for category in np.unique(categories):
        means[f"{category}_iou"] = float(scores["box"][categories == category, 0].mean())
    return means


@torch.no_grad()
def score_prompts(sam: Sam, scenes: list[TrainingScene], seed: int, batch: int = 32) -> dict[str, Scores]:
    """IoU and predicted IoU of every object of ``scenes`` in turn, by kind of prompt.

    Windows follow from the true or the jittered box; the kinds are ``box``, ``jittered``, ``click_1`` ... ``click_3``.
    """
    rng = np.random.default_rng(seed)
    pairs = [(scene, target) for scene in scenes for target in scene.objects]
    scores: dict[str, list[Scores]] = {}
    size = sam.image_encoder.img_size
    with in_bfloat16(sam.pixel_mean.device):
        for start in range(0, len(pairs), batch):
            chosen = pairs[start : start + batch]
            exact = [plain_sample(scene, target, target.box, size) for scene, target in chosen]
            loose = [plain_sample(scene, target, jittered(target, rng), size) for scene, target in chosen]
            for kind, samples in (("jittered", loose), ("box", exact)):
                features = encode(sam, np.stack([sample.image for sample in samples])).float()
                scores.setdefault(kind, []).append(score_boxes(sam, features, samples))
            for kind, values in score_clicks(sam, features, exact).items():
                scores.setdefault(kind, []).append(values)
    return {kind: np.concatenate(parts) for kind, parts in scores.items()}


@torch.no_grad()
def calibrate_predicted_iou(sam: Sam, scores: Scores) -> tuple[float, float]:
    """Correct the IoU head of ``sam`` in place by the line that maps predicted to true IoU best (least squares).

    Returns:
        Slope and offset of the line; the slope is kept between 0.5 and 1.5.
    """
    true, predicted = scores.T
    variance = float(predicted.var())
    covariance = float(((predicted - predicted.mean()) * (true - true.mean())).mean())
    slope = float(np.clip(covariance / variance, 0.5, 1.5)) if variance > 0 else 1.0
    offset = float(true.mean() - slope * predicted.mean())
    last = sam.mask_decoder.iou_prediction_head.layers[-1]
    last.weight.mul_(slope)
    last.bias.mul_(slope).add_(offset)
    return slope, offset


def calibrated(scores: Mapping[str, Scores], line: tuple[float, float]) -> dict[str, Scores]:
    """What ``score_prompts`` would give for a network that ``calibrate_predicted_iou`` corrected by ``line``.

    Masks do not depend on the correction, and which of several is the best neither: the slope is positive.
    """
    slope, offset = line
    return {kind: np.column_stack([values[:, 0], slope * values[:, 1] + offset]) for kind, values in scores.items()}


def plot_reliability(path: Path, scores: dict[str, Scores]) -> None:
    """Write a plot of true against predicted IoU to the PNG ``path``: means of bins of equal counts, by prompt."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, label="perfect")
    for kind, values in scores.items():
        order = values[values[:, 1].argsort()]
        bins = [part.mean(axis=0) for part in np.array_split(order, min(8, len(order)))]
        axes.plot([part[1] for part in bins], [part[0] for part in bins], marker="o", markersize=3, label=kind)
    low = max(0.0, min(float(np.quantile(values, 0.01)) for values in scores.values()) - 0.05)
    axes.set(xlim=(low, 1), ylim=(low, 1), xlabel="predicted IoU", ylabel="IoU", aspect="equal")
    axes.legend(fontsize=7)
    with atomic.open_bytes(path) as file:
        figure.savefig(file, format="png", dpi=80)


def jittered(target: TrainingObject, rng: np.random.Generator) -> Box:
    """The box of ``target`` with each side shifted by up to 10 % of the extent."""
    x0, y0, x1, y1 = target.box
    left, right = rng.uniform(-JITTER, JITTER, 2) * target.box.width
    top, bottom = rng.uniform(-JITTER, JITTER, 2) * target.box.height
    return Box(x0 + left, y0 + top, x1 + right, y1 + bottom)


@torch.no_grad()
def score_boxes(sam: Sam, features: Tensor, samples: Sequence[PromptTarget]) -> Scores:
    """Scores of B objects prompted by their boxes; ``features`` [B, C, h, w] are those of their inputs."""
    boxes = torch.from_numpy(np.stack([sample.box for sample in samples]))
    prompts = BatchPrompts(torch.zeros(len(samples), 0, 2), torch.zeros(len(samples), 0, dtype=torch.int64), boxes)
    return _score(sam, features, prompts, samples)[0]


@torch.no_grad()
def score_clicks(sam: Sam, features: Tensor, samples: Sequence[PromptTarget]) -> dict[str, Scores]:
    """Scores of B objects after each of three corrective clicks, without a box: ``click_1`` ... ``click_3``."""
    targets = np.stack([sample.mask for sample in samples]).astype(bool)
    prompts = BatchPrompts(torch.zeros(len(samples), 0, 2), torch.zeros(len(samples), 0, dtype=torch.int64))
    masks, logits, scores = np.zeros_like(targets), None, {}
    for number in range(1, CLICKS + 1):
        prompts = with_corrective_clicks(prompts, masks, targets, logits, keep_box=False)
        scores[f"click_{number}"], masks, logits = _score(sam, features, prompts, samples)
    return scores


def _score(
    sam: Sam, features: Tensor, prompts: BatchPrompts, samples: Sequence[PromptTarget]
) -> tuple[Scores, npt.NDArray[np.bool_], Tensor]:
    """Scores, masks bool[B, S, S] and low-resolution logits for one batch."""
    low, predicted_iou = decode_batch(sam, features, prompts)
    masks = (upsampled(low, samples[0].mask.shape[0]) > 0).cpu().numpy()
    values = []
    for mask, sample in zip(masks, samples, strict=True):
        target = sample.mask.astype(bool)
        hit = int((mask & target).sum())
        union = int(mask.sum()) + max(sample.full_area, float(target.sum())) - hit
        values.append(hit / max(1.0, union))
    return np.column_stack([values, predicted_iou.cpu().numpy()]).astype(np.float64), masks, low
