"""bfloat16 where it saves time: on GPUs, and on CPUs that multiply it."""

from __future__ import annotations

import torch

__all__ = ["in_bfloat16", "multiplies_bfloat16"]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 natively.

    A CPU without AVX512-BF16 (or AMX, which comes with it) emulates it: up to a hundred times slower than float32, and
    oneDNN's fused convolutions refuse it where there is no AVX-512 at all.
    """
    return device.type != "cpu" or bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def in_bfloat16(device: torch.device, wanted: bool = True) -> torch.autocast:
    """The context in which a network on ``device`` computes in bfloat16, if that is ``wanted`` and saves time there."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and multiplies_bfloat16(device))
