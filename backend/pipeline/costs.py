"""What a config costs per image on this machine, told before its weights are there.

The work of each network is known: floating point operations of one forward pass, counted with
``torch.utils.flop_counter`` on the published sizes (``WeightEntry.gflop``). How fast this machine does such work is
measured on a piece of it, two blocks of a vision transformer. What comes out is an expectation, good to a factor of
about two: networks differ in how well they use a machine, and decoding, foreground points and boundaries come on top
(tens of milliseconds).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from backend.pipeline.config import PipelineConfig
from backend.pipeline.weights import REGISTRY

__all__ = ["gflop", "seconds_per_image", "throughput"]


def gflop(config: PipelineConfig) -> float | None:
    """10^9 floating point operations for one image with one object; None with weights that are not in the registry."""
    grounder, encoder = _gflop(config.grounder.weights), _encoding(config)
    if grounder is None or encoder is None:
        return None
    if config.grounder.weights == config.segmenter.weights:  # parts of one checkpoint share what sees the image
        return encoder
    return grounder + encoder


def _encoding(config: PipelineConfig) -> float | None:
    """10^9 operations of the segmenter's encoder for a pre-label, which may look at its window twice."""
    once = _gflop(config.segmenter.weights)
    return None if once is None else once * (2 if config.segmenter.options.get("half_turn", False) else 1)


def _gflop(weights: str | None) -> float | None:
    entry = REGISTRY.get(weights or "")
    return None if entry is None else entry.gflop


def seconds_per_image(config: PipelineConfig, speeds: Mapping[bool, float]) -> float | None:
    """Seconds to expect for an image's first object, torch being the engine; None for weights not in the registry.

    Args:
        config: whose networks run.
        speeds: ``throughput`` without and with half precision.
    """
    work, encoder = gflop(config), _encoding(config)
    if work is None or encoder is None:
        return None
    lowered = bool(config.segmenter.options.get("autocast", False))
    return (work - encoder) / speeds[False] + encoder / speeds[lowered]


def throughput(device: str = "cpu", *, half: bool = False, repeats: int = 4) -> float:
    """10^9 floating point operations per second of this machine on a vision transformer, the best of some runs.

    Args:
        device: ``cpu`` or a GPU.
        half: in bfloat16.
        repeats: timed runs after those that warm up; each takes about a tenth of a second on a CPU of two cores.
    """
    import torch
    from segment_anything.modeling import ImageEncoderViT
    from torch.utils.flop_counter import FlopCounterMode

    encoder = ImageEncoderViT(
        img_size=224, depth=2, embed_dim=768, num_heads=12, use_rel_pos=True, window_size=14, global_attn_indexes=(1,)
    )
    encoder = encoder.to(device).eval().requires_grad_(False)
    pixels = torch.zeros(1, 3, 224, 224, device=device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:  # it cannot count under autocast
        encoder(pixels)
    fastest = float("inf")
    with torch.inference_mode(), torch.autocast(device.split(":")[0], torch.bfloat16, enabled=half):
        encoder(pixels)
        for _ in range(repeats):
            start = time.perf_counter()
            encoder(pixels)
            if device != "cpu":
                torch.cuda.synchronize()
            fastest = min(fastest, time.perf_counter() - start)
    return float(counter.get_total_flops()) / 1e9 / fastest
