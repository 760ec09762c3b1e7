"""Training of LQVG with the paper's losses and matcher, by one process or several (torchrun)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from backend.pipeline.grounding.lqvg import LqvgGrounder
from backend.pipeline.grounding.lqvg.inference import Tokenizer
from backend.pipeline.grounding.lqvg.network import LqvgNetwork
from backend.training.batches import batches
from backend.training.lqvg.data import GroundingBatches, GroundingExample
from backend.training.lqvg.loss import grounding_losses, total_loss
from backend.training.lqvg.settings import LqvgSettings
from backend.training.processes import Processes
from backend.training.run import TrainingRun
from dataset_tools.errors import ConfigError
from dataset_tools.image_files import read
from dataset_tools.progress import Bar

__all__ = ["train_lqvg", "validate"]

_AUTOCAST = {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def train_lqvg(
    run: TrainingRun | None,
    settings: LqvgSettings,
    network: LqvgNetwork,
    tokenizer: Tokenizer,
    training: Sequence[GroundingExample],
    validation: Sequence[GroundingExample],
    group: Processes,
) -> None:
    """Train ``network`` for ``settings.epochs``, or on from the run's checkpoint.

    Args:
        run: where checkpoints, log and best weights go (criterion ``P@0.5``); None in every process but the first.
        settings: of the run.
        network: with its first weights.
        tokenizer: of the text encoder.
        training: examples of the training split.
        validation: examples of the validation split.
        group: the processes that train together.

    Raises:
        ConfigError: a value of the config cannot work.
    """
    device = group.device
    precision = _precision(settings, device)
    examples = GroundingBatches(
        training,
        tokenizer,
        seed=settings.seed,
        batch_size=settings.batch_size,
        sides=settings.sides,
        longest=settings.longest,
        process=group.index,
        processes=group.count,
    )
    steps = settings.epochs * examples.steps_per_epoch
    network.to(device)
    freeze(network, settings)
    optimizer = torch.optim.AdamW(groups_by_rate(network, settings), weight_decay=settings.weight_decay)
    rates = [rates["lr"] for rates in optimizer.param_groups]
    scaler = torch.amp.GradScaler(device.type, enabled=precision.dtype is torch.float16)
    state = group.share(run.restore() if run is not None else None)
    first = 0
    if state is not None:
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        first = int(state["step"])
    model = _distributed(network, group)
    network.train()

    logged: list[dict[str, float]] = []
    ahead = batches(examples.__getitem__, first, steps, settings.workers, pin=device.type == "cuda")
    progress = Bar(ahead, initial=first, total=steps, desc="lqvg", unit="step", disable=run is None)
    for step, made in progress:
        batch = made.to(device)
        drop = 0.1 if step >= settings.drop_epoch * examples.steps_per_epoch else 1.0
        for rate, parameters in zip(rates, optimizer.param_groups, strict=True):
            parameters["lr"] = rate * drop
        # Dropout draws from the global generator: seeded by step, a resumed run draws what it would have drawn.
        torch.manual_seed(int(np.random.default_rng((settings.seed, 2, step, group.index)).integers(2**62)))
        with precision.autocast():
            outputs = model(batch.images, batch.image_padding, batch.token_ids, batch.text_attention)
        losses = grounding_losses(outputs, batch.targets, boxes_per_process=len(batch.targets))
        total = total_loss(losses)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        scaler.step(optimizer)
        scaler.update()
        last_layer = {name: float(losses[name].detach()) for name in ("loss_ce", "loss_bbox", "loss_giou")}
        logged.append({"loss": float(total.detach()), **last_layer, "gradient_norm": float(norm)})

        done = step + 1
        if done % settings.log_every == 0 or done == steps:
            means = _means(logged, group)
            progress.set_postfix(loss=f"{means['loss']:.2f}")
            if run is not None:
                run.log("train", done, **means)
            logged = []
        if done % settings.validate_every == 0 or done == steps:
            metrics = validate(network, tokenizer, validation, settings, group)
            network.train()
            if run is not None:
                run.log("validation", done, **metrics)
                run.keep_if_best(done, metrics[run.criterion], network.state_dict())
                run.save(
                    done,
                    model=network.state_dict(),
                    optimizer=optimizer.state_dict(),
                    scaler=scaler.state_dict(),
                )
                run.plot()


def validate(
    network: LqvgNetwork,
    tokenizer: Tokenizer,
    examples: Sequence[GroundingExample],
    settings: LqvgSettings,
    group: Processes,
) -> dict[str, float]:
    """``P@0.5`` (share of boxes with IoU > 0.5, as the original counts) and ``mIoU`` by the inference procedure.

    The processes share the examples; all get the same figures.
    """
    limit = settings.validation_limit
    if limit is not None and limit < len(examples):
        examples = [examples[i] for i in np.linspace(0, len(examples) - 1, limit).astype(int)]
    grounder = LqvgGrounder(network, tokenizer, settings.longest, device=str(group.device))
    overlaps = []
    for example in examples[group.index :: group.count]:
        found = grounder.ground(read(example.image), example.expression).groundings
        overlaps.append(found[0].box.iou(example.box) if found else 0.0)
    hits, overlap, count = group.total([sum(iou > 0.5 for iou in overlaps), sum(overlaps), len(overlaps)])
    return {"P@0.5": hits / count, "mIoU": overlap / count}


def freeze(network: LqvgNetwork, settings: LqvgSettings) -> None:
    """Switch gradients off where nothing is learned: RoBERTa's unused pooler, the ResNet's stem, RoBERTa at rate 0."""
    names = ["text_encoder.pooler."]
    if settings.freeze_stem:
        names += ["backbone.0.body.conv1.", "backbone.0.body.layer1."]
    if not settings.text_rate:
        names.append("text_encoder.")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(names)))


def groups_by_rate(network: LqvgNetwork, settings: LqvgSettings) -> list[dict[str, Any]]:
    """Trained parameters by learning rate: the ResNet, RoBERTa, everything else."""
    rates = {"backbone.": settings.backbone_rate, "text_encoder.": settings.text_rate, "": settings.learning_rate}
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in rates}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups[next(prefix for prefix in rates if name.startswith(prefix))].append(parameter)
    return [{"params": groups[prefix], "lr": float(rates[prefix])} for prefix in rates if groups[prefix]]


@dataclass(frozen=True)
class _Precision:
    device: torch.device
    dtype: torch.dtype | None

    def autocast(self) -> AbstractContextManager[Any]:
        """A context in which matrix products run in the chosen precision."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)


def _precision(settings: LqvgSettings, device: torch.device) -> _Precision:
    if settings.autocast == "float16" and device.type == "cpu":
        raise ConfigError("autocast float16 needs a GPU; on a CPU use bfloat16 or off")
    return _Precision(device, _AUTOCAST[settings.autocast])


def _means(logged: Sequence[Mapping[str, float]], group: Processes) -> dict[str, float]:
    """The means of the logged values over steps and processes."""
    names = list(logged[0])
    sums = group.total([sum(values[name] for values in logged) for name in names])
    return {name: value / (len(logged) * group.count) for name, value in zip(names, sums, strict=True)}


def _distributed(network: LqvgNetwork, group: Processes) -> nn.Module:
    if group.count == 1:
        return network
    return DistributedDataParallel(network, device_ids=[group.device] if group.device.type == "cuda" else None)
