"""Sine position codes of the image (two axes) and of the text (one axis); no parameters, float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TEMPERATURE = 10000.0
_EPSILON = 1e-6


def _waves(positions: Tensor, channels: int) -> Tensor:
    """Interleaved sine and cosine of ``positions`` [...] at ``channels`` frequencies -> float32[..., channels]."""
    exponents = 2 * torch.div(torch.arange(channels, device=positions.device), 2, rounding_mode="floor") / channels
    angles = positions[..., None] / _TEMPERATURE**exponents
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


def image_position_code(padding: Tensor, channels: int) -> Tensor:
    """Position code of a feature map: the first half of the channels codes y, the second x.

    Args:
        padding: bool[B, H, W], True = padding. Cells are counted along the valid part only.
        channels: width of the code.

    Returns:
        float32[B, channels, H, W].
    """
    valid = (~padding).float()
    y, x = valid.cumsum(1), valid.cumsum(2)
    y = (y - 0.5) / (y[:, -1:, :] + _EPSILON) * (2 * math.pi)
    x = (x - 0.5) / (x[:, :, -1:] + _EPSILON) * (2 * math.pi)
    return torch.cat((_waves(y, channels // 2), _waves(x, channels // 2)), dim=-1).permute(0, 3, 1, 2)


def text_position_code(padding: Tensor, channels: int) -> Tensor:
    """Position code of a sentence; unlike the image's it counts from 1, without the half-cell shift.

    Args:
        padding: bool[B, L], True = padding.
        channels: width of the code.

    Returns:
        float32[B, L, channels].
    """
    position = (~padding).float().cumsum(1)
    return _waves(position / (position[:, -1:] + _EPSILON) * (2 * math.pi), channels)
