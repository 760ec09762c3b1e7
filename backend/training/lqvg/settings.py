"""What a training config of LQVG may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.pipeline.grounding.lqvg.architecture import Architecture
from backend.training.settings import checked
from dataset_tools.errors import ConfigError

__all__ = ["LqvgSettings"]

_AUTOCAST = ("off", "bfloat16", "float16")


@dataclass(frozen=True)
class LqvgSettings:
    """A whole training config; what each key means is said beside its value in ``lqvg.yaml``."""

    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    backbone_rate: float
    text_rate: float
    weight_decay: float
    drop_epoch: int
    clip: float
    sides: tuple[int, ...]
    longest: int
    freeze_stem: bool
    autocast: str
    threads: int | None
    workers: int
    log_every: int
    validate_every: int
    validation_limit: int | None
    init: str | None
    resnet: str | None
    roberta: str | None
    architecture: Architecture | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LqvgSettings:
        """The settings in ``values``, as YAML gives them; raises ConfigError that names what is wrong."""
        nested = dict(values)
        if nested.get("autocast") is False:
            nested["autocast"] = "off"  # YAML reads a bare `off` as False
        if "architecture" in nested:
            sizes = nested["architecture"]
            try:
                nested["architecture"] = checked(Architecture, sizes, "architecture") if sizes else None
            except ValueError as error:
                raise ConfigError(f"architecture cannot be built: {error}") from error
        settings = checked(cls, nested, "the training config")
        if settings.autocast not in _AUTOCAST:
            raise ConfigError(f"autocast must be one of {', '.join(_AUTOCAST)}, got {settings.autocast!r}")
        if settings.init and (settings.architecture or settings.resnet or settings.roberta):
            raise ConfigError("init brings its own sizes and weights: leave architecture, resnet and roberta empty")
        return settings
