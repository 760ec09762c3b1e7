"""Puts a training run of the compact segmenter together: data from the config, run folder, shipped file."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.pipeline.segmentation.compact_sam import ARCHITECTURE, build_compact_sam
from backend.training.run import TrainingRun, read_weights, save_weights
from backend.training.segmenter.samples import PHOTOGRAPHS, SYNTHETIC, TrainingScene, scene_of, training_scenes
from backend.training.segmenter.settings import SegmenterSettings
from backend.training.segmenter.shapes import shape_scenes
from backend.training.segmenter.training import train_segmenter
from backend.training.segmenter.validation import (
    calibrate_predicted_iou,
    calibrated,
    categories_of,
    plot_reliability,
    score_prompts,
    summary,
)
from dataset_tools.errors import ConfigError
from dataset_tools.labelled import read

__all__ = ["export_weights", "read_data", "run_segmenter_training"]


def run_segmenter_training(
    data: Path,
    out: Path,
    config: dict[str, Any],
    resume: bool,
    *,
    minutes: float | None = None,
    device: torch.device | None = None,
    workers: int = 0,
) -> Path:
    """Train by ``config`` on the datasets below ``data``; returns the file of the best weights.

    ``minutes``, ``device`` and ``workers`` are those of ``train_segmenter``.

    Raises:
        ConfigError: the config names data that is not there, or ``out`` holds another run.
    """
    settings = SegmenterSettings.of(config)
    torch.set_num_threads(settings.threads)
    run = TrainingRun(out, config, criterion="score", resume=resume)
    training, validation = read_data(data, settings, workers)
    init = read_weights(Path(settings.init)) if settings.init else None
    train_segmenter(run, settings, training, validation, init, minutes=minutes, device=device, workers=workers)
    return export_weights(out, settings, validation, init)


def export_weights(
    out: Path, settings: SegmenterSettings, validation: list[TrainingScene], init: Mapping[str, Tensor] | None
) -> Path:
    """Calibrate the best weights of the run ``out`` and write them as the pipeline loads them.

    What is written is their mean with ``init``, of which that has the settings' ``average_with_init``: both ends of a
    stage that started from trained weights err differently, and lie close enough for their mean to work ("Model
    soups", arXiv 2203.05482).

    Writes ``model.safetensors`` (half precision), ``reliability.png`` and ``validation.json`` (after calibration).
    """
    size = settings.side
    sam = build_compact_sam(size, **settings.network())
    best = read_weights(out / "best.safetensors")
    if init is not None:
        share = settings.average_with_init
        best = {k: torch.lerp(v, init[k].to(v), share) if v.is_floating_point() else v for k, v in best.items()}
    sam.load_state_dict(best)
    sam = sam.to(memory_format=torch.channels_last).eval()
    scores = score_prompts(sam, validation, settings.seed)
    line = calibrate_predicted_iou(sam, np.concatenate(list(scores.values())))
    scores = calibrated(scores, line)
    plot_reliability(out / "reliability.png", scores)
    report = {"calibration": line, **summary(scores, categories_of(validation))}
    (out / "validation.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    metadata = {"architecture": ARCHITECTURE, "img_size": str(size), "model": json.dumps(settings.network())}
    save_weights(out / "model.safetensors", sam.state_dict(), torch.float16, metadata)
    return out / "model.safetensors"


def read_data(
    data: Path, settings: SegmenterSettings, workers: int = 0
) -> tuple[list[TrainingScene], list[TrainingScene]]:
    """Training and validation scenes of the settings' ``data``, ``exclude_categories`` and numbers of scenes.

    ``workers`` processes decode; 0: this one.
    """
    training: list[TrainingScene] = []
    validation: list[TrainingScene] = []
    for name, part in settings.data.items():
        folder = data / name
        if not folder.is_dir():
            raise ConfigError(
                f"the config names the dataset {name}, but {folder} is no folder: set --data or the config"
            )
        if part.validation is None:
            images, held_out = read(folder, part.split), read(folder, part.validation_split)
        else:
            every = read(folder)
            images = [image for image in every if image.name not in part.validation]
            held_out = [image for image in every if image.name in part.validation]
        origin = PHOTOGRAPHS if part.share is None else name
        training += training_scenes(images, settings.exclude_categories, workers, origin)
        validation += training_scenes(held_out, settings.exclude_categories, workers)
    photographs = list(training)
    for number in range(settings.synthetic_scenes):
        scene = _synthetic_scene(settings.seed * 100_003 + number, settings.exclude_categories)
        training += [scene] if scene.objects else []
    training += shape_scenes(photographs, settings.shape_scenes, settings.seed)
    return training, validation


def _synthetic_scene(seed: int, exclude_categories: Collection[str]) -> TrainingScene:
    from dataset_tools import synthetic

    scene = synthetic.draw_scene(seed)
    masks = ((o.category, o.mask) for o in scene.objects if o.category not in exclude_categories)
    return scene_of(f"synthetic-{seed}", scene.image, masks, SYNTHETIC)
