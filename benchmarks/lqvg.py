"""LQVG: the deformable attention against plain ``grid_sample``, and the parity table against the original.

    python -m benchmarks.lqvg speed [--size 800] [--pairs 5] [--threads 1]
    python -m benchmarks.lqvg parity

``speed`` needs no weights (random values of the published sizes) and reports medians of interleaved pairs.
``parity`` prints the largest absolute error of every recorded tensor.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from backend.pipeline.grounding.lqvg import deformable
from backend.pipeline.grounding.lqvg.architecture import Architecture
from backend.pipeline.grounding.lqvg.network import LqvgNetwork


def sample_by_grid(values: Tensor, sizes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """The plain implementation (Deformable DETR's ``ms_deform_attn_core_pytorch``), same contract as ours."""
    B, _, heads, C = values.shape
    Q = locations.shape[1]
    grids = 2 * locations - 1
    sampled = []
    for level, (part, (height, width)) in enumerate(
        zip(torch.split(values, [h * w for h, w in sizes], 1), sizes, strict=True)
    ):
        maps = part.flatten(2).transpose(1, 2).reshape(B * heads, C, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled.append(functional.grid_sample(maps, grid, padding_mode="zeros", align_corners=False))
    attention = weights.transpose(1, 2).reshape(B * heads, 1, Q, -1)
    summed = (torch.stack(sampled, dim=-2).flatten(-2) * attention).sum(-1)
    return summed.view(B, heads * C, Q).transpose(1, 2).contiguous()


def _paired(run: Callable[[Callable[..., Tensor]], None], pairs: int) -> tuple[float, float, float]:
    """Median seconds with the plain and with our sampling, and the median of the paired ratios; a warm-up before."""
    ours = deformable.sample_levels
    times: list[tuple[float, float]] = []
    for _ in range(pairs + 1):
        pair = []
        for sampler in (sample_by_grid, ours):
            start = time.perf_counter()
            run(sampler)
            pair.append(time.perf_counter() - start)
        times.append((pair[0], pair[1]))
    times = times[1:]
    return (
        statistics.median(p for p, _ in times),
        statistics.median(o for _, o in times),
        statistics.median(p / o for p, o in times),
    )


def speed(size: int, pairs: int) -> None:
    """Times of the attention's core, of its forward and backward, and of the whole network."""
    torch.manual_seed(0)
    sizes = [(-(-size // stride),) * 2 for stride in (8, 16, 32, 64)]
    cells = sum(h * w for h, w in sizes)
    values = torch.randn(1, cells, 8, 32)
    locations = torch.rand(1, cells, 8, 4, 4, 2)
    weights = torch.rand(1, cells, 8, 16).softmax(-1).view(1, cells, 8, 4, 4)

    def forward(sampler: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            sampler(values, sizes, locations, weights)

    inputs = [values.clone().requires_grad_(), locations.clone().requires_grad_(), weights.clone().requires_grad_()]

    def both(sampler: Callable[..., Tensor]) -> None:
        torch.autograd.grad(sampler(inputs[0], sizes, inputs[1], inputs[2]).sum(), inputs)

    network = LqvgNetwork(Architecture()).eval()
    arguments = (
        torch.randn(1, 3, size, size),
        torch.zeros(1, size, size, dtype=torch.bool),
        torch.randint(4, 50000, (1, 20)),
        torch.ones(1, 20, dtype=torch.int64),
    )

    def whole(sampler: Callable[..., Tensor]) -> None:
        with torch.no_grad(), mock.patch.object(deformable, "sample_levels", sampler):
            network(*arguments)

    print(f"{size} x {size}, {cells} cells, {torch.get_num_threads()} thread(s), medians of {pairs} interleaved pairs")
    print(f"{'':34s}{'grid_sample':>12s}{'ours':>10s}{'ratio':>8s}")
    for name, run in (
        ("deformable sampling, forward", forward),
        ("deformable sampling, with backward", both),
        ("network, forward", whole),
    ):
        plain, ours, ratio = _paired(run, pairs)
        print(f"{name:34s}{plain:11.3f}s{ours:9.3f}s{ratio:8.2f}")


def parity() -> None:
    """The largest absolute error of every tensor that the original's run recorded, per case."""
    from tests.pipeline.grounding.lqvg import reference

    recorded = reference.load_reference("small")
    with tempfile.TemporaryDirectory() as folder:
        network = reference.load_network(Path(folder))
    table: dict[str, dict[str, float]] = {}
    for case in reference.CASES:
        found = reference.run_case(network, recorded, case)
        for name, values, expected in reference.compare(found, recorded, case):
            error = np.abs(values.astype(np.float64) - expected.astype(np.float64)).max()
            table.setdefault(name, {})[case] = float(error)
    print(f"{'max abs error':22s}" + "".join(f"{case:>12s}" for case in reference.CASES))
    for name, errors in table.items():
        print(f"{name:22s}" + "".join(f"{errors[case]:12.1e}" for case in reference.CASES))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "parity"))
    parser.add_argument("--size", type=int, default=800, help="side of the image in pixels")
    parser.add_argument("--pairs", type=int, default=5, help="interleaved pairs per figure")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "speed":
        speed(options.size, options.pairs)
    else:
        parity()
