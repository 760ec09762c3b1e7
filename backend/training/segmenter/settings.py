"""What a train.yaml of the compact segmenter may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from backend.training.settings import checked
from dataset_tools.categories import CATEGORIES
from dataset_tools.errors import ConfigError

__all__ = ["KINDS", "DatasetPart", "NetworkSizes", "PromptGroup", "SegmenterSettings"]

KINDS = ("box", "box_point", "click", "region")
"""Kinds of a window's first prompt."""


@dataclass(frozen=True)
class NetworkSizes:
    """Arguments of ``build_compact_sam``."""

    embed_dim: int = 128
    widths: tuple[int, int, int, int, int] = (32, 64, 128, 192, 256)
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    mlp_dim: int = 512


@dataclass(frozen=True)
class PromptGroup:
    """A part of each batch.

    Attributes:
        windows: how many.
        prompts: probability of each of ``KINDS`` as the first prompt.
        rounds: probabilities of 0, 1, 2, ... corrective clicks after it.
    """

    windows: int
    prompts: Mapping[str, float]
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class DatasetPart:
    """What of a dataset's images is trained on, and what validates.

    Attributes:
        split: a part of its split.json, with ``validation_split``.
        validation_split: another.
        validation: without a split: names of the validation images; the others are trained on.
        share: of the windows; sets without one share what the others leave, as they have objects.
    """

    split: str | None = None
    validation_split: str | None = None
    validation: tuple[str, ...] | None = None
    share: float | None = None


@dataclass(frozen=True)
class SegmenterSettings:
    """A whole train.yaml; what each key means is said beside its value in the shipped one."""

    seed: int
    init: str | None
    average_with_init: float
    model: NetworkSizes
    data: Mapping[str, DatasetPart]
    exclude_categories: tuple[str, ...]
    synthetic_scenes: int
    synthetic_share: float
    shape_scenes: int
    shape_share: float
    steps: int
    stop_after: int | None
    sizes: tuple[tuple[float, int], ...]
    groups: tuple[PromptGroup, ...]
    jitter: float
    category_power: float
    learning_rate: float
    weight_decay: float
    warmup: int
    decay_share: float
    clip: float
    ema_decay: float
    iou_weight: float
    autocast: bool
    threads: int
    log_every: int
    validate_every: int
    save_every: int = 100

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SegmenterSettings:
        """The settings in ``values``, as YAML gives them; raises ConfigError that names what is wrong."""
        nested = dict(values)
        if "model" in nested:
            nested["model"] = checked(NetworkSizes, nested["model"], "model")
        if "groups" in nested:
            nested["groups"] = [checked(PromptGroup, group, "groups") for group in nested["groups"]]
        if "data" in nested:
            nested["data"] = {
                name: checked(DatasetPart, part, f"data: {name}") for name, part in (nested["data"] or {}).items()
            }
        settings = checked(cls, nested, "the training config")
        settings._check()
        return settings

    def _check(self) -> None:
        if unknown := sorted({kind for group in self.groups for kind in group.prompts} - set(KINDS)):
            raise ConfigError(f"groups may name {', '.join(KINDS)}; got {', '.join(unknown)}")
        if unknown := [name for name in self.exclude_categories if name not in CATEGORIES]:
            raise ConfigError(
                f"exclude_categories: {unknown[0]!r} is no canonical category; it may be {', '.join(CATEGORIES)}"
            )
        for name, part in self.data.items():
            with_split = part.split is not None and part.validation_split is not None
            if with_split == (part.validation is not None):
                raise ConfigError(
                    f"data: {name} needs split and validation_split, or the names of its validation images"
                )

        shares = [part.share for part in self.data.values() if part.share is not None]
        if (total := sum(shares) + self.synthetic_share + self.shape_share) > 1 + 1e-9 or min(shares, default=0) < 0:
            raise ConfigError(
                f"the shares of data, synthetic_share and shape_share are parts of 1; they add up to {total:g}"
            )

    @property
    def side(self) -> int:
        """Of the windows at the end, in pixels: what the exported network reads."""
        return int(self.sizes[-1][1])

    def network(self) -> dict[str, Any]:
        """Arguments of ``build_compact_sam``."""
        return asdict(self.model)
