"""The compact grounder's network: a one-stage centre-point detector for overhead images.

A small residual backbone and a feature pyramid with outputs at strides 4, 8 and 16; at each cell one heat value per
category (the cell is an object's centre) and the distances from the cell to the four sides of its box, as in
TTFNet (arXiv 1909.00700) and FCOS (arXiv 1904.01355). Small objects are read at stride 4, large ones at stride 16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from backend.errors import WeightsError
from dataset_tools.atomic import write_bytes

STRIDES = (4, 8, 16)
"""Strides of the three output levels in network pixels."""
PADDING_MULTIPLE = 32
"""Height and width of the network's input must be multiples of this."""
COMPACT_CATEGORIES = (
    "airplane",
    "ship",
    "storagetank",
    "baseballfield",
    "tenniscourt",
    "basketballcourt",
    "groundtrackfield",
    "harbor",
    "bridge",
    "vehicle",
    "building",
)
"""Canonical names (``dataset_tools.categories``) in the order of the network's heat channels."""

_MEAN = (0.40, 0.41, 0.37)
_STD = (0.20, 0.19, 0.18)
_FORMAT = "pslg-compact-grounder-1"


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of the network; stored beside its weights.

    Attributes:
        categories: one heat channel each.
        widths: channels of the stem and of the stages at strides 4, 8, 16 and 32.
        depths: residual blocks of the stages at strides 4, 8, 16 and 32.
        pyramid_width: channels of the feature pyramid and of the heads.
    """

    categories: tuple[str, ...] = COMPACT_CATEGORIES
    widths: tuple[int, int, int, int, int] = (32, 64, 96, 160, 256)
    depths: tuple[int, int, int, int] = (1, 2, 2, 2)
    pyramid_width: int = 64

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DetectorConfig:
        """The config in a mapping read from YAML or JSON, where tuples are lists."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities and answers; chosen on the validation split and stored beside the weights.

    Attributes:
        even: per category, the score at which a detection is as likely an object as not.
        slope: how fast the probability rises with the score's logit.
        answer: an expression is answered if the likeliest object of its category has at least this probability.
        scales: long sides in pixels at which an image is read; the detections of all are merged.
    """

    even: Mapping[str, float]
    slope: float = 1.0
    answer: float = 0.5
    scales: tuple[int, ...] = (640,)

    def probability(self, category: str, score: float) -> float:
        """Probability in [0, 1] that a detection of ``category`` with ``score`` in [0, 1] is such an object."""
        return 1 / (1 + math.exp(-self.slope * (_logit(score) - _logit(self.even[category]))))


def _logit(score: float) -> float:
    score = min(max(score, 1e-4), 1 - 1e-4)
    return math.log(score / (1 - score))


class _ConvNormRelu(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return functional.relu(x, inplace=True) if self.relu else x

    def fuse(self) -> None:
        """Fold the normalisation into the convolution (inference only)."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _ConvNormRelu(width, width)
        self.second = _ConvNormRelu(width, width, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)), inplace=True)


class _Head(nn.Module):
    """One tower shared by all levels (an object looks alike at every scale), normalised per level."""

    def __init__(self, width: int, outputs: int, bias: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in STRIDES)
        self.out = nn.Conv2d(width, outputs, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.constant_(self.out.bias if self.out.bias is not None else torch.empty(0), bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [
            self.out(functional.relu(norm(self.conv(level)), inplace=True))
            for norm, level in zip(self.norms, features, strict=True)
        ]


@dataclass(frozen=True)
class DetectorOutput:
    """Raw outputs, one tensor per level of ``STRIDES``.

    Attributes:
        heat: logits [B, C, H/stride, W/stride].
        sides: natural logarithm of (left, top, right, bottom) over the level's stride, [B, 4, H/stride, W/stride].
        semantic: logits [B, C, H/4, W/4] of the auxiliary mask head; None outside training.
    """

    heat: list[Tensor]
    sides: list[Tensor]
    semantic: Tensor | None


class Detector(nn.Module):
    """Images float32[B, 3, H, W] RGB in [0, 255] -> ``DetectorOutput``; H and W multiples of ``PADDING_MULTIPLE``."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        widths, pyramid = config.widths, config.pyramid_width
        self.register_buffer("mean", 255 * torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.stem = nn.Sequential(_ConvNormRelu(3, widths[0], 2), _ConvNormRelu(widths[0], widths[1], 2))
        stages = []
        for level, depth in enumerate(config.depths):
            blocks: list[nn.Module] = [_ResidualBlock(widths[level + 1]) for _ in range(depth)]
            if level:
                blocks.insert(0, _ConvNormRelu(widths[level], widths[level + 1], 2))
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList(nn.Conv2d(width, pyramid, 1) for width in widths[1:])
        self.smooth = nn.ModuleList(_ConvNormRelu(pyramid, pyramid) for _ in STRIDES)
        # A heat bias of log(0.01 / 0.99): the first steps are not spent on learning that most cells are background.
        self.heat = _Head(pyramid, len(config.categories), bias=-4.6)
        self.sides = _Head(pyramid, 4, bias=1.0)
        self.semantic = nn.Conv2d(pyramid, len(config.categories), 1)

    def forward(self, images: Tensor) -> DetectorOutput:
        """Maps of ``images`` float32[B, 3, H, W]; raises ValueError for sizes that do not divide."""
        if images.shape[-1] % PADDING_MULTIPLE or images.shape[-2] % PADDING_MULTIPLE:
            raise ValueError(f"height and width must be multiples of {PADDING_MULTIPLE}, got {tuple(images.shape)}")
        x = self.stem((images - self.mean) / self.std)
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        top = self.lateral[3](stages[3])
        pyramid: list[Tensor] = []
        for level in (2, 1, 0):
            top = self.lateral[level](stages[level]) + functional.interpolate(top, scale_factor=2.0, mode="nearest")
            top = self.smooth[level](top)
            pyramid.insert(0, top)
        semantic = self.semantic(pyramid[0]) if self.training else None
        return DetectorOutput(self.heat(pyramid), self.sides(pyramid), semantic)

    def fuse(self) -> None:
        """Fold normalisations into convolutions; call once, in evaluation mode."""
        for module in self.modules():
            if isinstance(module, _ConvNormRelu):
                module.fuse()


def save_detector(detector: Detector, calibration: Calibration, path: Path) -> None:
    """Write weights as fp16 safetensors, sizes and calibration in its metadata; the file is replaced atomically.

    Normalisation statistics stay fp32: variances can leave the range of fp16.
    """
    state = {
        name: (value if "running" in name else value.half()).contiguous()
        for name, value in detector.state_dict().items()
        if "num_batches" not in name
    }
    metadata = {
        "format": _FORMAT,
        "detector": json.dumps(asdict(detector.config)),
        "calibration": json.dumps(asdict(calibration)),
    }
    write_bytes(path, serialize(state, metadata))


def load_detector(path: Path) -> tuple[Detector, Calibration]:
    """The detector in evaluation mode (fp32, fused) and its calibration; raises WeightsError for any other file."""
    if not path.is_file():
        raise WeightsError(f"no grounder weights at {path}; run `pslg train compact-grounder` or check the config")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:  # safetensors raises its own untyped error
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); fetch or train it again") from error
    if metadata.get("format") != _FORMAT:
        raise WeightsError(f"{path} has format {metadata.get('format')!r}, the compact grounder needs {_FORMAT!r}")
    detector = Detector(DetectorConfig.of(json.loads(metadata["detector"])))
    missing, unexpected = detector.load_state_dict(state, strict=False)
    missing = [name for name in missing if "num_batches" not in name]
    if missing or unexpected:
        raise WeightsError(f"{path} does not fit its own sizes: missing {missing[:3]}, unexpected {unexpected[:3]}")
    detector.eval()
    detector.fuse()
    calibration = json.loads(metadata["calibration"])
    calibration["scales"] = tuple(calibration["scales"])
    return detector.to(memory_format=torch.channels_last), Calibration(**calibration)
