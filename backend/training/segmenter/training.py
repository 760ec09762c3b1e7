"""Training of the compact segmenter: interactive rounds of prompts on windows of growing resolution.

Each step encodes one batch of windows and decodes it in groups that differ in the first prompt (box; box and foreground
point; one click; a damaged region to be corrected); a group goes through rounds of corrective clicks with the previous
logits as mask prompt, as in "Segment Anything" (arXiv 2304.02643, appendix A).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from backend.pipeline.devices import in_bfloat16
from backend.pipeline.segmentation.compact_sam import build_compact_sam, set_img_size
from backend.training.batches import batches
from backend.training.run import Ema, TrainingRun, parameter_groups, seed_everything, step_generator
from backend.training.schedule import Schedule
from backend.training.segmenter.prompts import (
    BatchPrompts,
    PromptTarget,
    damaged_logits,
    decode_batch,
    encode,
    interior_point,
    upsampled,
    with_corrective_clicks,
)
from backend.training.segmenter.samples import (
    SHAPES,
    SYNTHETIC,
    TrainingObject,
    TrainingScene,
    WindowSample,
    draw_sample,
)
from backend.training.segmenter.settings import SegmenterSettings
from backend.training.segmenter.validation import validate
from dataset_tools.progress import Bar

__all__ = [
    "BalancedDraw",
    "interactive_rounds",
    "means_of",
    "train_segmenter",
]


def train_segmenter(
    run: TrainingRun,
    settings: SegmenterSettings,
    scenes: list[TrainingScene],
    held_out: list[TrainingScene],
    init: dict[str, Tensor] | None,
    *,
    minutes: float | None = None,
    device: torch.device | None = None,
    workers: int = 0,
) -> None:
    """Train until ``settings.steps``, from ``init`` weights if given, or from the run's checkpoint.

    Args:
        run: where checkpoints, log and best weights go; its criterion is one of the quantities of ``validate``.
        settings: of the run.
        scenes: training scenes.
        held_out: validation scenes.
        init: a state dict to start from.
        minutes: train so long, whatever the number of steps (``Schedule``).
        device: where the network learns; default: the CPU.
        workers: processes that draw the windows; 0: this one.
    """
    device = device or torch.device("cpu")
    seed_everything(settings.seed)
    sam = build_compact_sam(**settings.network())
    if init is not None:
        sam.load_state_dict(init)
    sam = sam.to(device).to(memory_format=torch.channels_last)
    parameters = parameter_groups(sam, settings.weight_decay)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, fused=True)
    ema = Ema(sam, settings.ema_decay)
    first = 0
    if (state := run.restore()) is not None:
        sam.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        first = int(state["step"])

    shares = {name: part.share for name, part in settings.data.items() if part.share is not None}
    shares |= {SYNTHETIC: settings.synthetic_share, SHAPES: settings.shape_share}
    draw = BalancedDraw(scenes, settings.category_power, shares)
    averaged = copy.deepcopy(sam).eval()
    logged = []
    schedule = Schedule(settings.steps if minutes is None else None, minutes, first)
    last = None
    if minutes is None:
        last = settings.steps if settings.stop_after is None else min(settings.steps, settings.stop_after)

    def make(step: int) -> _Batch:
        return _draw_batch(settings, draw, _size_at(schedule.progress(step), settings.sizes), step)

    progress = Bar(
        batches(make, first, last, workers), initial=first, total=last, desc="compact segmenter", unit="step"
    )
    before = _size_at(schedule.progress(max(0, first - 1)), settings.sizes)

    def save(done: int) -> None:
        run.save(done, model=sam.state_dict(), optimizer=optimizer.state_dict(), ema=ema.state_dict())

    for step, batch in progress:
        size = batch.samples[0].mask.shape[0]
        set_img_size(sam, size)
        if size != before:
            run.best_value = None  # the weights are for the last size; figures of others do not compare
        before = size
        rate = schedule.rate(step, settings.learning_rate, settings.warmup, settings.decay_share)
        for group in optimizer.param_groups:
            group["lr"] = rate
        sam.train()
        loss, parts = _step(sam, settings, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(sam.parameters(), settings.clip)
        optimizer.step()
        ema.update(sam)
        logged.append(parts)
        done = step + 1
        over = done == last or schedule.is_over(done)
        if done % settings.log_every == 0 or over:
            means = means_of(logged)
            run.log("train", done, **means)
            progress.set_postfix(loss=f"{means['loss']:.3f}", iou=f"{means['iou']:.3f}")
            logged = []
        if over and minutes is not None:  # a machine that is lent for minutes may be gone before the validation ends
            save(done)
        if done % settings.validate_every == 0 or over:
            averaged.load_state_dict(ema.tensors)
            set_img_size(averaged, sam.image_encoder.img_size)
            metrics = validate(averaged, held_out, settings.seed)
            run.log("validation", done, **metrics)
            run.keep_if_best(done, metrics[run.criterion], ema.tensors)
            run.plot()
        if done % settings.validate_every == 0 or done % settings.save_every == 0 or over:
            save(done)
        if over:
            break


@dataclass(frozen=True, eq=False)
class _Batch:
    """Windows of one step, the kind of first prompt of each group of them, and the randomness of what follows."""

    samples: list[WindowSample]
    kinds: list[str]
    rng: np.random.Generator


def _draw_batch(settings: SegmenterSettings, draw: BalancedDraw, size: int, step: int) -> _Batch:
    rng = step_generator(settings.seed, step)
    groups = settings.groups
    kinds = [str(rng.choice(list(group.prompts), p=list(group.prompts.values()))) for group in groups]
    samples = [
        draw_sample(*draw(rng), size, rng, jitter=settings.jitter, free_window=kind == "click" and rng.random() < 0.6)
        for group, kind in zip(groups, kinds, strict=True)
        for _ in range(group.windows)
    ]
    return _Batch(samples, kinds, rng)


def _step(sam: Sam, settings: SegmenterSettings, batch: _Batch) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch, and what to log of it."""
    groups, samples, rng = settings.groups, batch.samples, batch.rng
    losses: list[Tensor] = []
    parts: dict[str, list[float]] = {"iou": [], "iou_error": []}
    with in_bfloat16(sam.pixel_mean.device, settings.autocast):
        features = encode(sam, np.stack([sample.image for sample in samples]))
        start = 0
        for group, kind in zip(groups, batch.kinds, strict=True):
            part = slice(start, start + group.windows)
            rounds = 1 + int(rng.choice(len(group.rounds), p=group.rounds))
            losses += interactive_rounds(
                sam, features[part], samples[part], kind, rounds, settings.iou_weight, rng, parts
            )
            start = part.stop
    total = torch.stack(losses).sum() / len(samples) / len(groups)
    return total, {"loss": float(total.detach()), **{name: float(np.mean(values)) for name, values in parts.items()}}


def interactive_rounds(
    sam: Sam,
    features: Tensor,
    samples: Sequence[PromptTarget],
    kind: str,
    rounds: int,
    iou_weight: float,
    rng: np.random.Generator,
    parts: dict[str, list[float]],
) -> list[Tensor]:
    """One loss per round of prompts for a group of samples; what to log is appended to ``parts``.

    Args:
        sam: its prompt encoder and mask decoder are used.
        features: float[B, C, h, w], on the device where to compute.
        samples: B objects, one in each of the embedded inputs.
        kind: of the first prompt, one of ``settings.KINDS``.
        rounds: 1 and as many corrective clicks as it is larger.
        iou_weight: of the predicted IoU's error in the loss.
        rng: all randomness.
        parts: quantity -> values.
    """
    masks = np.stack([sample.mask for sample in samples]).astype(bool)
    size = masks.shape[1]
    targets = torch.from_numpy(masks).float().to(features.device)
    areas = torch.tensor([sample.full_area for sample in samples], dtype=torch.float32, device=features.device)
    prompts = _first_prompts(kind, samples, masks, sam.prompt_encoder.mask_input_size[0], rng)
    losses = []
    for number in range(rounds):
        low, predicted_iou = decode_batch(sam, features, prompts, targets)
        logits = upsampled(low, size)
        loss, iou = _mask_loss(logits, targets, areas)
        losses.append((loss + iou_weight * functional.mse_loss(predicted_iou, iou)) * len(samples))
        parts["iou"].append(float(iou.mean()))
        parts["iou_error"].append(float((predicted_iou.detach() - iou).abs().mean()))
        parts.setdefault(f"iou_{kind}_{min(number, 1)}", []).append(float(iou.mean()))
        if number + 1 < rounds:
            keep_box = bool(rng.random() < 0.8)
            mask_prompt = low.detach() if rng.random() < 0.9 else None
            prompts = with_corrective_clicks(prompts, (logits.detach() > 0).cpu().numpy(), masks, mask_prompt, keep_box)
    return losses


def _first_prompts(
    kind: str, samples: Sequence[PromptTarget], masks: npt.NDArray[np.bool_], side: int, rng: np.random.Generator
) -> BatchPrompts:
    """Prompts of ``kind``; a region's mask logits have ``side`` pixels."""
    count = len(samples)
    none = BatchPrompts(torch.zeros(count, 0, 2), torch.zeros(count, 0, dtype=torch.int64))
    boxes = torch.from_numpy(np.stack([sample.box for sample in samples]))
    if kind == "box":
        return BatchPrompts(none.points, none.labels, boxes)
    if kind == "region":
        damaged, logits = damaged_logits(masks, side, rng)
        return with_corrective_clicks(none, damaged, masks, logits, keep_box=False)
    if kind == "click" and rng.random() < 0.5:  # the evaluation's first click: the deepest point
        return with_corrective_clicks(none, np.zeros_like(masks), masks, None, keep_box=False)
    points = torch.tensor([interior_point(mask, rng) for mask in masks])[:, None]
    return BatchPrompts(points, torch.ones(count, 1, dtype=torch.int64), boxes if kind == "box_point" else None)


def _mask_loss(logits: Tensor, targets: Tensor, areas: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy plus dice loss of logits [B, S, S], and the IoU [B] with the whole object of ``areas`` pixels."""
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets)
    probability = logits.sigmoid()
    overlap = (probability * targets).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2)) + targets.sum((1, 2)) + 1)
    with torch.no_grad():
        predicted = (logits > 0).float()
        inside = targets.sum((1, 2))
        hit = (predicted * targets).sum((1, 2))
        iou = hit / (predicted.sum((1, 2)) + torch.maximum(areas, inside) - hit).clamp(min=1)
    return 2 * cross_entropy + dice.mean(), iou


class BalancedDraw:
    """Draws objects with category weights count ** power: 1 follows the data, 0 makes categories equal.

    ``shares`` of the draws go to scenes of these origins where there are any, the rest to the others.
    """

    def __init__(self, scenes: list[TrainingScene], power: float, shares: Mapping[str, float]) -> None:
        self.pairs = [(scene, target) for scene in scenes for target in scene.objects]
        names = [(scene.origin, target.category) for scene, target in self.pairs]
        counts = Counter(names)
        weights = np.array([counts[name] ** (power - 1.0) for name in names])
        origins = np.array([origin for origin, _ in names])
        drawn = {origin: share for origin, share in shares.items() if (origins == origin).any()}
        parts = [(origins == origin, share) for origin, share in drawn.items()]
        parts.append((~np.isin(origins, list(drawn)), 1 - sum(drawn.values())))
        for part, share in parts:
            if part.any():
                weights[part] *= share / weights[part].sum()
        self.cumulative = np.cumsum(weights / weights.sum())

    def __call__(self, rng: np.random.Generator) -> tuple[TrainingScene, TrainingObject]:
        """The next object and its scene."""
        index = int(np.searchsorted(self.cumulative, rng.random()))
        return self.pairs[min(index, len(self.pairs) - 1)]


def _size_at(progress: float, sizes: Sequence[tuple[float, int]]) -> int:
    """The window's side at ``progress`` in [0, 1): the last of ``[[from, side], ...]`` that has begun."""
    return int([side for begin, side in sizes if progress >= begin][-1])


def means_of(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each quantity over the steps that have it."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: float(np.mean([part[name] for part in parts if name in part])) for name in names}
