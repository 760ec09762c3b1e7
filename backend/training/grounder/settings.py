"""What a train.yaml of the compact grounder may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.pipeline.grounding.compact.network import COMPACT_CATEGORIES, DetectorConfig
from backend.training.grounder.augmentation import AugmentationConfig
from backend.training.settings import checked
from dataset_tools.categories import CATEGORIES, KINDS
from dataset_tools.errors import ConfigError


@dataclass(frozen=True)
class SourceSettings:
    """Where images come from: a ``coco_jsonl`` folder, or drawn scenes.

    Attributes:
        folder: below the data folder; with ``split`` or ``names`` only a part of it.
        split: a part of its split.json.
        names: only these file names.
        every: only each so many-th image.
        unlabelled: weight in [0, 1] of "no such object here" by category, where labels are not complete.
        complete_where_present: categories of ``unlabelled`` that have no gaps in an image with one of them outlined.
        boxes_only: its outlines are only boxes.
        scenes: number of drawn scenes, in place of a folder.
        seed: of the first of them.
        share: of the samples.
        from_step: the step from which on samples are drawn from it.
    """

    folder: str | None = None
    split: str | None = None
    names: tuple[str, ...] | None = None
    every: int = 1
    unlabelled: Mapping[str, float] = field(default_factory=dict)
    complete_where_present: tuple[str, ...] = ()
    boxes_only: bool = False
    scenes: int = 0
    seed: int = 0
    share: float = 1.0
    from_step: int = 0


@dataclass(frozen=True)
class TrainingSettings:
    """A whole train.yaml; what each key means is said beside its value in the shipped one."""

    seed: int
    init: str | None
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: int
    decay_share: float
    ema_decay: float
    clip_norm: float
    bfloat16: bool
    log_every: int
    validate_every: int
    max_side: int
    scales: tuple[int, ...]
    loss_weights: Mapping[str, float]
    detector: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    sources: Mapping[str, Mapping[str, Any]]
    validation: Mapping[str, Mapping[str, Any]]
    backbone_rate: float = 1.0
    frozen_blocks: int = 0
    save_every: int = 500
    keep_last: bool = False
    calibrate_on_training: bool = False
    calibration: Mapping[str, Mapping[str, Any]] | None = None
    leave_out: tuple[str, ...] = ()
    average_with_init: float = 0.0
    mirrored: int = 0


def without_left_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what ``leave_out`` names gone from the detector, with its kinds, and unknown in every set.

    Their objects are neither learnt nor measured, and where they stand nothing is said of them. Done to the config
    and not to the images, so that a run's folder holds what was trained.
    """
    left_out = set(values.get("leave_out") or ())
    if not left_out:
        return dict(values)
    detector = dict(values["detector"])
    names = detector.get("categories", COMPACT_CATEGORIES)
    detector["categories"] = [name for name in names if not left_out & {name, KINDS.get(name, name)}]
    result = {**values, "detector": detector}
    for part in ("sources", "validation", "calibration"):
        if values.get(part):
            result[part] = {
                name: {**source, "unlabelled": {**source.get("unlabelled", {}), **dict.fromkeys(sorted(left_out), 0.0)}}
                for name, source in values[part].items()
            }
    return result


def check_settings(values: Mapping[str, Any]) -> TrainingSettings:
    """The settings in ``values``; raises ConfigError that names a key which is unknown or missing."""
    settings = checked(TrainingSettings, values, "the training config")
    categories = DetectorConfig.of(settings.detector).categories
    if unknown := [name for name in settings.leave_out if name not in CATEGORIES]:
        raise ConfigError(f"leave_out: {unknown[0]!r} is no canonical category; it may be {', '.join(CATEGORIES)}")
    if categories and not set(categories) - set(settings.leave_out):
        raise ConfigError("leave_out: nothing is left to learn")
    checked(AugmentationConfig, settings.augmentation, "augmentation")
    for part in ("sources", "validation", "calibration"):
        for name, source in (getattr(settings, part) or {}).items():
            found = checked(SourceSettings, source, f"{part}: {name}")
            if (found.folder is None) == (found.scenes == 0):
                raise ConfigError(f"{part}: {name} needs a folder of images or a number of drawn scenes")
    return settings
