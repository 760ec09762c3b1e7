"""The deformable attention's sampling against its definition by ``grid_sample``."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backend.pipeline.grounding.lqvg.deformable import sample_levels
from benchmarks.lqvg import sample_by_grid


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]:
    side = st.integers(1, 9)
    sizes = draw(st.lists(st.tuples(side, side), min_size=1, max_size=4))
    B, Q, heads, points, C = (draw(st.integers(1, 3)) for _ in range(5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    cells = sum(h * w for h, w in sizes)
    values = torch.randn(B, cells, heads, C, generator=generator, dtype=torch.float64)
    shape = (B, Q, heads, len(sizes), points)
    # a third of the points lies outside; some far outside
    locations = 0.5 + draw(st.sampled_from([0.4, 3.0])) * torch.randn(*shape, 2, generator=generator).double()
    return values, sizes, locations, torch.rand(shape, generator=generator).double()


@settings(max_examples=40)
@given(problems())
def test_samples_and_gradients_equal_grid_sample(
    problem: tuple[Tensor, list[tuple[int, int]], Tensor, Tensor],
) -> None:
    values, sizes, locations, weights = problem
    inputs = [tensor.requires_grad_() for tensor in (values, locations, weights)]
    results = []
    for function in (sample_levels, sample_by_grid):
        out = function(values, sizes, locations, weights)
        results.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    for ours, defined in zip(*results, strict=True):
        torch.testing.assert_close(ours, defined, rtol=1e-9, atol=1e-9)


def test_points_on_and_beyond_the_border_read_zero_outside() -> None:
    values = torch.ones(1, 6, 1, 1)  # one level of 2 x 3 cells, all ones
    x = torch.tensor([0.5, 0.0, 1.0, -1.0, 1e6, -1e6])
    locations = torch.stack((x, torch.full_like(x, 0.5)), dim=-1).view(1, 6, 1, 1, 1, 2)
    sampled = sample_levels(values, [(2, 3)], locations, torch.ones(1, 6, 1, 1, 1))
    assert sampled.flatten().tolist() == [1.0, 0.5, 0.5, 0.0, 0.0, 0.0]  # half of a border sample lies outside
