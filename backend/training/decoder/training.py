"""Fine-tuning of a SAM's mask decoder behind its frozen encoder: all that arXiv 2506.10503 trains of stage 2.

Features come embedded (``decoder_samples``), so a step costs decodes only: minutes on a CPU for the compact segmenter.
Prompts and losses are those of ``segmenter.training``: boxes, box and foreground point, clicks, regions to be
corrected, each with rounds of corrective clicks. What is kept is the average of the weights over the steps that scores
best on held-out images, or the start if no step beats it; its predicted IoU is calibrated on them.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from backend.pipeline.devices import in_bfloat16
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.training.decoder.samples import DecoderSample, held_out_split
from backend.training.run import Ema, TrainingRun, parameter_groups, step_generator
from backend.training.schedule import learning_rate
from backend.training.segmenter.settings import KINDS
from backend.training.segmenter.training import interactive_rounds, means_of
from backend.training.segmenter.validation import (
    Scores,
    calibrate_predicted_iou,
    calibrated,
    score_boxes,
    score_clicks,
    summary,
)
from dataset_tools.errors import ConfigError, DatasetError

__all__ = ["DecoderOptions", "TunedDecoder", "tune_decoder"]

CALIBRATE_FROM = 20
"""Held-out objects needed before the predicted IoU is corrected: a line through fewer would follow chance."""


@dataclass(frozen=True)
class DecoderOptions:
    """How to fine-tune; the defaults fit the compact segmenter and some hundred objects.

    Attributes:
        steps: of the optimizer, at most.
        minutes: time that the steps may take, at most; None: as long as they need.
        batch: objects per step.
        prompts: kind of a step's first prompt -> probability (``segmenter.settings.KINDS``).
        rounds: probability of 0, 1, 2, ... corrective clicks after it.
        learning_rate: at its peak, after ``warmup`` steps; it falls to zero by the end.
        weight_decay: of matrices and kernels.
        clip: largest norm of the gradient.
        ema_decay: weight of the past in the average of the weights.
        average_with_init: share of the weights to start from in the mean that is measured and taken: less is forgotten
            of what was known than is lost of what is new (Wortsman et al. 2022, arXiv 2109.01903).
        least_gain: of the held-out score over the start's, from which on a step is taken.
        iou_weight: of the predicted IoU's error in the loss.
        category_power: 1: objects as frequent as in the data; 0: categories equally frequent.
        mask_prompts: train the prompt encoder's embedding of mask prompts too.
        held_out_share: of the images, where no validation samples are given.
        validate_every: steps between measurements on the held-out images.
        autocast: decode in bfloat16 while training; measurements are made in float32.
        seed: of all draws.
    """

    steps: int = 200
    minutes: float | None = None
    batch: int = 16
    prompts: Mapping[str, float] = field(
        default_factory=lambda: {"box": 0.45, "box_point": 0.25, "click": 0.2, "region": 0.1}
    )
    rounds: tuple[float, ...] = (0.6, 0.2, 0.2)
    learning_rate: float = 0.0003
    weight_decay: float = 0.01
    warmup: int = 10
    clip: float = 1.0
    ema_decay: float = 0.98
    average_with_init: float = 0.0
    least_gain: float = 0.0
    iou_weight: float = 1.0
    category_power: float = 0.6
    mask_prompts: bool = False
    held_out_share: float = 0.15
    validate_every: int = 50
    autocast: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.prompts) - set(KINDS):
            raise ConfigError(f"prompts may name {', '.join(KINDS)}; got {', '.join(sorted(unknown))}")
        for name, values in (("prompts", list(self.prompts.values())), ("rounds", list(self.rounds))):
            if not values or min(values) < 0 or abs(sum(values) - 1) > 1e-6:
                raise ConfigError(f"{name} must be probabilities that add up to 1, got {values}")
        for name in ("steps", "batch", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("held_out_share", "average_with_init"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def plain(self) -> dict[str, Any]:
        """Plain values, for a run's config.yaml."""
        return {**asdict(self), "prompts": dict(self.prompts), "rounds": list(self.rounds)}


@dataclass(frozen=True, eq=False)
class TunedDecoder:
    """The result.

    Attributes:
        tensors: of prompt encoder and mask decoder, under the names that they have in the whole ``Sam``.
        before, after: figures on the held-out samples (``segmenter_validation.summary``) at the start and of
            ``tensors``; empty where nothing was held out.
        step: after which ``tensors`` were taken; 0: no step was better than the start.
    """

    tensors: dict[str, Tensor]
    before: dict[str, float]
    after: dict[str, float]
    step: int


def tune_decoder(
    segmenter: SamSegmenter,
    training: Sequence[DecoderSample],
    validation: Sequence[DecoderSample] | None = None,
    options: DecoderOptions | None = None,
    *,
    progress: Callable[[float, str], None] = lambda *_: None,
    run: TrainingRun | None = None,
) -> TunedDecoder:
    """Train a copy of the mask decoder of ``segmenter``, which itself stays as it is.

    Args:
        segmenter: compact or ViT; computes where its weights are.
        training: from ``decoder_samples`` of the same segmenter.
        validation: held-out samples; None holds ``options.held_out_share`` of the training images out. Without any
            (an empty sequence, or a single training image) the last average is taken and nothing is calibrated.
        options: how to train.
        progress: called with the share that is done, in [0, 1], and a line about it.
        run: keeps log, checkpoints and best weights (criterion ``score``); a run with a checkpoint goes on from it.

    Raises:
        DatasetError: no object to train on.
    """
    options = options or DecoderOptions()
    if validation is None:
        training, validation = held_out_split(training, options.held_out_share, options.seed)
    if not training:
        raise DatasetError("there is no object to train the mask decoder on: label some first")
    return _Tuning(segmenter.sam, list(training), list(validation), options, run).run(progress)


class _Tuning:
    """State of one fine-tuning."""

    def __init__(
        self,
        sam: Sam,
        training: list[DecoderSample],
        validation: list[DecoderSample],
        options: DecoderOptions,
        run: TrainingRun | None,
    ) -> None:
        self.options = options
        self.validation = [sample for sample in validation if sample.view in ("exact", "jittered")]
        self.record = run
        self.device = next(sam.mask_decoder.parameters()).device
        self.sam = _decoder_copy(sam)
        # Named as in the whole Sam, so that state dicts of this part fit it.
        self.part = nn.ModuleDict({"prompt_encoder": self.sam.prompt_encoder, "mask_decoder": self.sam.mask_decoder})
        self.part.mask_decoder.requires_grad_(True)
        if options.mask_prompts:
            self.part.get_submodule("prompt_encoder.mask_downscaling").requires_grad_(True)
        self.by_box = _Draw([s for s in training if s.view != "free"], options.category_power)
        self.by_click = _Draw(training, options.category_power)
        self.before: dict[str, float] = {}
        self.best_value = -1.0
        self.best_step = 0
        self.start = {name: value.detach().clone() for name, value in self.part.state_dict().items()}
        self.best = self.start

    def run(self, progress: Callable[[float, str], None]) -> TunedDecoder:
        options = self.options
        groups = parameter_groups(self.part, options.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=options.learning_rate)
        ema = Ema(self.part, options.ema_decay)
        step, spent = 0, 0.0
        state = None if self.record is None else self.record.restore()
        if state is None:
            self._measure(0, ema)
        else:
            self.part.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            ema.load_state_dict(state["ema"])
            self.best, self.best_value = state["best"], state["best_value"]
            self.before, self.best_step = state["before"], int(state["best_step"])
            step, spent = int(state["step"]), float(state["spent"])
        logged: list[dict[str, float]] = []
        started = time.monotonic() - spent
        while (share := self._share(step, time.monotonic() - started)) < 1:
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * min(1.0, (step + 1) / max(1, options.warmup))
                group["lr"] *= learning_rate(round(share * options.steps), options.steps, 1.0, 0, 1.0)
            loss, parts = self._step(step_generator(options.seed, step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.part.parameters(), options.clip)
            optimizer.step()
            ema.update(self.part)
            logged.append(parts)
            step += 1
            if step % options.validate_every == 0:
                line = self._log(step, logged, ema)
                logged = []
                self._checkpoint(step, optimizer, ema, time.monotonic() - started)
                progress(step / options.steps, line)
        if logged:
            self._log(step, logged, ema)
        result = self._finish(ema)
        progress(1.0, f"held-out score {result.after['score']:.3f}" if result.after else "done")
        return result

    def _share(self, step: int, seconds: float) -> float:
        """What is done of the budget that ends first: steps or minutes."""
        share = step / self.options.steps
        return share if self.options.minutes is None else max(share, seconds / (60 * self.options.minutes))

    def _step(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch, and what to log of it."""
        options = self.options
        kind = str(rng.choice(list(options.prompts), p=list(options.prompts.values())))
        rounds = 1 + int(rng.choice(len(options.rounds), p=options.rounds))
        draw = self.by_box if kind in ("box", "box_point") else self.by_click
        samples = draw(options.batch, rng)
        parts: dict[str, list[float]] = {"iou": [], "iou_error": []}
        with in_bfloat16(self.device, options.autocast):
            losses = interactive_rounds(
                self.sam, self._features(samples), samples, kind, rounds, options.iou_weight, rng, parts
            )
        loss = torch.stack(losses).mean() / len(samples)
        return loss, {"loss": float(loss.detach()), **{name: float(np.mean(values)) for name, values in parts.items()}}

    def _features(self, samples: Sequence[DecoderSample]) -> Tensor:
        """float32[B, C, h, w]."""
        return torch.from_numpy(np.stack([sample.features() for sample in samples])).to(self.device, torch.float32)

    def _log(self, step: int, logged: list[dict[str, float]], ema: Ema) -> str:
        means = means_of(logged)
        if self.record is not None:
            self.record.log("train", step, **means)
        metrics = self._measure(step, ema)
        line = f"step {step}: loss {means['loss']:.3f}"
        return line + (f", held-out score {metrics['score']:.3f}" if metrics else "")

    def _measure(self, step: int, ema: Ema) -> dict[str, float]:
        """Figures of the average on the held-out samples; the best average is kept."""
        candidate = self._candidate(ema)
        if not self.validation:
            self.best, self.best_step = candidate, step
            return {}
        trained = {name: value.detach().clone() for name, value in self.part.state_dict().items()}
        self.part.load_state_dict(candidate)
        metrics = self._figures(self._scores())
        self.part.load_state_dict(trained)
        if step == 0:
            self.before = metrics
        needed = self.options.least_gain if step and not self.best_step else 0.0
        if metrics["score"] > self.best_value + needed:
            self.best_value, self.best_step = metrics["score"], step
            self.best = candidate
            if self.record is not None:
                self.record.keep(step, self.best_value, candidate)
        if self.record is not None:
            self.record.log("validation", step, **metrics)
        return metrics

    def _candidate(self, ema: Ema) -> dict[str, Tensor]:
        """The weights that would be taken now."""
        share = self.options.average_with_init
        return {
            name: value.lerp(self.start[name], share) if value.is_floating_point() else value.clone()
            for name, value in ema.tensors.items()
        }

    def _scores(self) -> dict[str, Scores]:
        scores: dict[str, list[Scores]] = {}
        for view in ("exact", "jittered"):
            chosen = [sample for sample in self.validation if sample.view == view]
            for start in range(0, len(chosen), self.options.batch):
                samples = chosen[start : start + self.options.batch]
                features = self._features(samples)
                found = {"jittered" if view == "jittered" else "box": score_boxes(self.sam, features, samples)}
                if view == "exact":
                    found |= score_clicks(self.sam, features, samples)
                for kind, values in found.items():
                    scores.setdefault(kind, []).append(values)
        return {kind: np.concatenate(parts) for kind, parts in scores.items()}

    def _figures(self, scores: dict[str, Scores]) -> dict[str, float]:
        return summary(scores, np.array([sample.category for sample in self.validation if sample.view == "exact"]))

    def _checkpoint(self, step: int, optimizer: torch.optim.Optimizer, ema: Ema, spent: float) -> None:
        if self.record is not None:
            self.record.save(
                step,
                model=self.part.state_dict(),
                optimizer=optimizer.state_dict(),
                ema=ema.state_dict(),
                best=self.best,
                best_value=self.best_value,
                best_step=self.best_step,
                before=self.before,
                spent=spent,
            )

    def _finish(self, ema: Ema) -> TunedDecoder:
        if self.record is not None:
            self.record.plot()
        self.part.load_state_dict(self.best if self.validation else self._candidate(ema))
        self.part.requires_grad_(False)
        after: dict[str, float] = {}
        if self.validation:
            scores = self._scores()
            if len(scores["box"]) >= CALIBRATE_FROM:
                scores = calibrated(scores, calibrate_predicted_iou(self.sam, np.concatenate(list(scores.values()))))
            after = self._figures(scores)
        tensors = {name: value.detach().cpu().clone() for name, value in self.part.state_dict().items()}
        return TunedDecoder(tensors, self.before, after, self.best_step)


class _Draw:
    """Draws batches of samples; a category of n objects has the weight n ** power."""

    def __init__(self, samples: list[DecoderSample], power: float) -> None:
        self.samples = samples
        counts = Counter(sample.category for sample in samples)
        weights: npt.NDArray[np.float64] = np.array([counts[s.category] ** (power - 1.0) for s in samples])
        self.weights = weights / weights.sum()

    def __call__(self, count: int, rng: np.random.Generator) -> list[DecoderSample]:
        chosen = rng.choice(len(self.samples), count, replace=count > len(self.samples), p=self.weights)
        return [self.samples[index] for index in chosen]


def _decoder_copy(sam: Sam) -> Sam:
    """A ``Sam`` that shares the encoder of ``sam`` and owns copies of the rest, everything frozen."""
    own = Sam(sam.image_encoder, copy.deepcopy(sam.prompt_encoder), copy.deepcopy(sam.mask_decoder))
    return own.to(sam.device).eval().requires_grad_(False)
