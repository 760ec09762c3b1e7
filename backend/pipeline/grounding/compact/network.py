"""The compact grounder's network: a one-stage centre-point detector for overhead images.

A small backbone (``efficientnet``, or a residual one) and a feature pyramid with outputs at strides 4, 8 and 16; at
each cell one heat value per category (the cell is an object's centre) and the distances from the cell to the four sides
of its box, as in TTFNet (arXiv 1909.00700) and FCOS (arXiv 1904.01355). Small objects are read at stride 4, large ones
at stride 16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from backend.pipeline.grounding.compact.efficientnet import WIDTHS, EfficientNetLite0
from dataset_tools.categories import KINDS
from dataset_tools.errors import ConfigError

STRIDES = (4, 8, 16)
"""Strides of the three output levels in network pixels."""
HEAT_BIAS = -4.6
"""Logit of the heat where nothing has been learnt yet."""
PADDING_MULTIPLE = 32
"""Height and width of the network's input must be multiples of this."""
_LEAST_HEAT = 1e-6
"""Averaged heat is kept this far from 0 and 1, where logits end."""
_EXCHANGED = (2, 1, 0, 3)
"""Left, top, right and bottom in the mirror."""
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
    "helicopter",
    "swimmingpool",
    "roundabout",
    "soccerfield",
    *KINDS,
)
"""Canonical names (``dataset_tools.categories``) in the order of the network's heat channels, then kinds of them."""

_MEAN = (0.40, 0.41, 0.37)
_STD = (0.20, 0.19, 0.18)


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of the network; stored beside its weights.

    Attributes:
        categories: one heat channel each; kinds (``dataset_tools.categories.KINDS``) come after what they are kinds of.
        backbone: ``efficientnet_lite0``, or ``residual`` (of ``widths`` and ``depths``).
        widths: channels of the residual stem and of its stages at strides 4, 8, 16 and 32.
        depths: residual blocks of the stages at strides 4, 8, 16 and 32.
        pyramid_width: channels of the feature pyramid and of the heads.
        places: categories with box outputs of their own. They hold objects of other categories, and one of these is
            often in their middle (the soccer field in a track), where a cell could report but one box for both.
        adapter_width: hidden channels of the adapter that learnt from a project's labels; 0: there is none.
        adapted: how many of the categories, the last ones, only the adapter knows.
    """

    categories: tuple[str, ...] = COMPACT_CATEGORIES
    backbone: str = "residual"
    widths: tuple[int, int, int, int, int] = (32, 64, 96, 160, 256)
    depths: tuple[int, int, int, int] = (1, 2, 2, 2)
    pyramid_width: int = 64
    places: tuple[str, ...] = ()
    adapter_width: int = 0
    adapted: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DetectorConfig:
        """The config in a mapping read from YAML or JSON, where tuples are lists."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        unknown = sorted(plain.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"the detector has no setting {unknown[0]!r}; it has {[f.name for f in fields(cls)]}")
        return cls(**plain)

    @property
    def outlined(self) -> int:
        """How many categories the auxiliary mask head draws: all that are known but kinds."""
        known = self.categories[: len(self.categories) - self.adapted]
        return sum(name not in KINDS for name in known)

    @property
    def groups(self) -> tuple[int, ...]:
        """Of each category, which of a cell's boxes is its own (``DetectorOutput.groups``)."""
        known = len(self.categories) - self.adapted
        groups = [int(name in self.places) for name in self.categories[:known]]
        return (*groups, *[self.box_groups] * self.adapted)

    @property
    def box_groups(self) -> int:
        """How many boxes a cell reports without an adapter."""
        return 2 if self.places else 1


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities and answers; chosen on the validation split and stored beside the weights.

    Attributes:
        even: per category, the score at which a detection is as likely an object as not.
        slope: how fast the probability rises with the score's logit.
        answer: an expression is answered if the likeliest object of its category has at least this probability.
        scales: long sides in pixels at which an image is read; the detections of all are merged.
        mirrored: in so many of these readings, the coarsest first, the image's mirror image is read too.
    """

    even: Mapping[str, float]
    slope: float = 1.0
    answer: float = 0.5
    scales: tuple[int, ...] = (640,)
    mirrored: int = 0

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


class Head(nn.Module):
    """One tower shared by all levels (an object looks alike at every scale), normalised per level."""

    def __init__(self, width: int, outputs: int, bias: float, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or width
        self.conv = nn.Conv2d(width, hidden, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(hidden) for _ in STRIDES)
        self.out = nn.Conv2d(hidden, outputs, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.constant_(self.bias, bias)

    @property
    def bias(self) -> Tensor:
        """Of the output."""
        assert self.out.bias is not None  # noqa: S101 - for the type checker: a convolution with a bias has one
        return self.out.bias

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One map per level of ``features`` [B, width, h, w]."""
        return [
            self.out(functional.relu(norm(self.conv(level)), inplace=True))
            for norm, level in zip(self.norms, features, strict=True)
        ]


@dataclass(frozen=True)
class DetectorOutput:
    """Raw outputs, one tensor per level of ``STRIDES``.

    Attributes:
        heat: logits [B, C, H/stride, W/stride].
        sides: natural logarithm of (left, top, right, bottom) over the level's stride, for each of G boxes in turn,
            [B, 4 * G, H/stride, W/stride].
        semantic: logits [B, ``config.outlined``, H/4, W/4] of the auxiliary mask head; None outside training.
        groups: of each of the C categories, which of the G boxes is its own; empty: all have the first.
        looks: how many looks at the image are averaged here; where readings vote, each look has a voice.
    """

    heat: list[Tensor]
    sides: list[Tensor]
    semantic: Tensor | None
    groups: tuple[int, ...] = ()
    looks: int = 1


class Detector(nn.Module):
    """Images float32[B, 3, H, W] RGB in [0, 255] -> ``DetectorOutput``; H and W multiples of ``PADDING_MULTIPLE``."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        pyramid = config.pyramid_width
        self.backbone: EfficientNetLite0 | None = None
        widths: tuple[int, ...]
        if config.backbone == "efficientnet_lite0":
            mean, std = (127 / 255,) * 3, (128 / 255,) * 3
            self.backbone = EfficientNetLite0()
            widths = WIDTHS
        elif config.backbone == "residual":
            mean, std = _MEAN, _STD
            widths = config.widths[1:]
            self._add_residual_stages(config)
        else:
            raise ConfigError(f"backbone must be efficientnet_lite0 or residual, got {config.backbone!r}")
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.lateral = nn.ModuleList(nn.Conv2d(width, pyramid, 1) for width in widths)
        self.smooth = nn.ModuleList(_ConvNormRelu(pyramid, pyramid) for _ in STRIDES)
        # A heat bias of log(0.01 / 0.99): the first steps are not spent on learning that most cells are background.
        known = len(config.categories) - config.adapted
        self.heat = Head(pyramid, known, bias=HEAT_BIAS)
        self.sides = Head(pyramid, 4 * config.box_groups, bias=1.0)
        self.semantic = nn.Conv2d(pyramid, config.outlined, 1)
        self.adapter: Head | None = None
        if config.adapter_width:
            self.adapter = Head(pyramid, len(config.categories) + 4, bias=0.0, hidden=config.adapter_width)

    def _add_residual_stages(self, config: DetectorConfig) -> None:
        widths = config.widths
        self.stem = nn.Sequential(_ConvNormRelu(3, widths[0], 2), _ConvNormRelu(widths[0], widths[1], 2))
        stages = []
        for level, depth in enumerate(config.depths):
            blocks: list[nn.Module] = [_ResidualBlock(widths[level + 1]) for _ in range(depth)]
            if level:
                blocks.insert(0, _ConvNormRelu(widths[level], widths[level + 1], 2))
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def levels(self, images: Tensor) -> list[Tensor]:
        """What the backbone says at strides 4, 8, 16 and 32; ``images`` as for ``forward``."""
        if images.shape[-1] % PADDING_MULTIPLE or images.shape[-2] % PADDING_MULTIPLE:
            raise ValueError(f"height and width must be multiples of {PADDING_MULTIPLE}, got {tuple(images.shape)}")
        images = (images - self.mean) / self.std
        if self.backbone is not None:
            return self.backbone(images)  # type: ignore[no-any-return]
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def forward(self, images: Tensor) -> DetectorOutput:
        """Maps of ``images`` float32[B, 3, H, W]; raises ValueError for sizes that do not divide."""
        pyramid = self.pyramid(images)
        semantic = self.semantic(pyramid[0]) if self.training else None
        return self.adapted_output(pyramid, self.heat(pyramid), self.sides(pyramid), semantic)

    def adapted_output(
        self, pyramid: Sequence[Tensor], heat: list[Tensor], sides: list[Tensor], semantic: Tensor | None = None
    ) -> DetectorOutput:
        """The output from what the detector's own heads said of ``pyramid``, with the adapter's part added."""
        if self.adapter is None:
            return DetectorOutput(heat, sides, semantic, self.config.groups)
        added = self.adapter(pyramid)
        count, new = len(self.config.categories), self.config.adapted
        unknown = (0, 0, 0, 0, 0, new)
        heat = [
            functional.pad(old, unknown, value=HEAT_BIAS) + more[:, :count]
            for old, more in zip(heat, added, strict=True)
        ]
        if new:
            sides = [
                torch.cat([old, old[:, :4] + more[:, count:]], dim=1) for old, more in zip(sides, added, strict=True)
            ]
        return DetectorOutput(heat, sides, semantic, self.config.groups)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """The features [B, ``pyramid_width``, H/stride, W/stride] that the heads read, one per level of ``STRIDES``;
        ``images`` as for ``forward``.
        """
        return self.pyramid_of(self.levels(images))

    def pyramid_of(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """``pyramid`` from what ``levels`` gave."""
        top = self.lateral[3](stages[3])
        pyramid: list[Tensor] = []
        for level in (2, 1, 0):
            top = self.lateral[level](stages[level]) + functional.interpolate(top, scale_factor=2.0, mode="nearest")
            top = self.smooth[level](top)
            pyramid.insert(0, top)
        return pyramid

    def fuse(self) -> None:
        """Fold normalisations into convolutions; call once, in evaluation mode."""
        for module in self.modules():
            if isinstance(module, _ConvNormRelu):
                module.fuse()


def read_mirrored(detector: Detector, inputs: Tensor) -> DetectorOutput:
    """What ``detector`` says of ``inputs`` float32[1, 3, H, W] and of their mirror image, averaged.

    What stands left and right in an overhead image means nothing: the mean takes out what the network learnt of it by
    chance. A reading twice costs twice. The padding is mirrored with the image, so that the cells of both lie on each
    other.
    """
    both = torch.cat([inputs, inputs.flip(-1)]).contiguous(memory_format=torch.channels_last)
    output = detector(both)
    of_image, of_mirror = (
        DetectorOutput(
            [level[place : place + 1] for level in output.heat],
            [level[place : place + 1] for level in output.sides],
            None,
            output.groups,
        )
        for place in range(2)
    )
    return averaged(of_image, of_mirror)


def averaged(of_image: DetectorOutput, of_mirror: DetectorOutput) -> DetectorOutput:
    """The mean of two outputs for the image: of the heat (not its logits) and of the distances to the sides.

    Args:
        of_image: what the network said of its input.
        of_mirror: what it said of that input's mirror image.
    """
    heat = [
        ((one.float().sigmoid() + other.float().flip(-1).sigmoid()) / 2).clamp(_LEAST_HEAT, 1 - _LEAST_HEAT).logit()
        for one, other in zip(of_image.heat, of_mirror.heat, strict=True)
    ]
    sides = [
        ((one.float().exp() + _exchanged(other.float().flip(-1)).exp()) / 2).log()
        for one, other in zip(of_image.sides, of_mirror.sides, strict=True)
    ]
    return DetectorOutput(heat, sides, None, of_image.groups, of_image.looks + of_mirror.looks)


def _exchanged(sides: Tensor) -> Tensor:
    """Sides [B, 4 * G, h, w] with left and right exchanged in each group."""
    count, _, height, width = sides.shape
    return sides.view(count, -1, 4, height, width)[:, :, _EXCHANGED].reshape(sides.shape)
