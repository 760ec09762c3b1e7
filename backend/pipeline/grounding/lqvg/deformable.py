"""Multi-scale deformable attention (Deformable DETR) as gathers of four neighbours with one weighted sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.pipeline.grounding.lqvg.architecture import LEVELS


def sample_levels(values: Tensor, sizes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples from several feature levels; outside of a level values are zero.

    Equal to ``grid_sample(2 * location - 1, align_corners=False, padding_mode="zeros")`` per level followed by the
    weighted sum, but a query's samples (corners x levels x points) are one bag of rows of ``embedding_bag``, so that
    the samples themselves are never written out. Heads are taken one by one to keep the temporaries in the cache.

    Args:
        values: float[B, S, heads, C], the levels flattened row by row and concatenated.
        sizes: (height, width) of each level; their areas sum to S.
        locations: float[B, Q, heads, levels, points, 2], (x, y), 0..1 over the level.
        weights: float[B, Q, heads, levels, points].

    Returns:
        float[B, Q, heads * C] in the dtype of ``weights``.
    """
    B, _, heads, C = values.shape
    Q, points = locations.shape[1], locations.shape[4]
    height, width, first_row = (
        torch.tensor(column, device=values.device, dtype=torch.int32).repeat_interleave(points)
        for column in (
            [h for h, _ in sizes],
            [w for _, w in sizes],
            list(accumulate((h * w for h, w in sizes[:-1]), initial=0)),
        )
    )
    tables = values.to(weights.dtype).transpose(1, 2).flatten(0, 1)  # [B * heads, S, C]
    axes = locations.permute(0, 2, 5, 1, 3, 4).reshape(B * heads, 2, Q, -1)
    weights = weights.transpose(1, 2).reshape(B * heads, Q, -1)
    sampled = []
    for table, (x, y), weight in zip(tables, axes, weights, strict=True):
        left, right, left_share, right_share = _neighbours(x, width)
        top, bottom, top_share, bottom_share = _neighbours(y, height)
        top_share, bottom_share = top_share * weight, bottom_share * weight
        top, bottom = top * width + first_row, bottom * width + first_row
        rows = torch.cat((top + left, top + right, bottom + left, bottom + right), dim=-1)
        shares = torch.cat(
            (top_share * left_share, top_share * right_share, bottom_share * left_share, bottom_share * right_share),
            dim=-1,
        )
        sampled.append(functional.embedding_bag(rows, table, mode="sum", per_sample_weights=shares))
    return torch.stack(sampled).view(B, heads, Q, C).transpose(1, 2).flatten(2)


def _neighbours(location: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two cells around each ``location`` (0..1) on an axis of ``size`` cells, and their shares (0 outside)."""
    position = location * size - 0.5
    below = position.detach().floor()
    fraction = position - below
    low = below.int()
    high = low + 1
    low_share = (1 - fraction) * ((low >= 0) & (low < size))
    high_share = fraction * ((high >= 0) & (high < size))
    last = size - 1
    return torch.minimum(low.clamp(min=0), last), torch.minimum(high.clamp(min=0), last), low_share, high_share


class DeformableAttention(nn.Module):
    """Each query looks at a few learned points per head and level around its reference point or box."""

    def __init__(self, hidden_dim: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads = heads
        self.points = points
        self.sampling_offsets = nn.Linear(hidden_dim, heads * LEVELS * points * 2)
        self.attention_weights = nn.Linear(hidden_dim, heads * LEVELS * points)
        self.value_proj = nn.Linear(hidden_dim, hidden_dim)
        self.output_proj = nn.Linear(hidden_dim, hidden_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Deformable DETR's start: head i looks in direction i, point p at distance p + 1, all weights equal."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1, self.points + 1)
        offsets = directions[:, None, None] * distances[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, LEVELS, -1, -1).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self, query: Tensor, references: Tensor, source: Tensor, sizes: Sequence[tuple[int, int]], padding: Tensor
    ) -> Tensor:
        """Attend from ``query`` to ``source``.

        Args:
            query: float32[B, Q, D].
            references: float32[B, Q, levels, 2] points (x, y) or [B, Q, levels, 4] boxes (cx, cy, w, h), 0..1.
            source: float32[B, S, D], the flattened levels.
            sizes: (height, width) of each level.
            padding: bool[B, S], True = padding, read as zero.

        Returns:
            float32[B, Q, D].
        """
        B, Q, D = query.shape
        values = self.value_proj(source).masked_fill(padding[..., None], 0.0)
        offsets = self.sampling_offsets(query).view(B, Q, self.heads, LEVELS, self.points, 2)
        weights = self.attention_weights(query).view(B, Q, self.heads, LEVELS * self.points).softmax(dim=-1)
        references = references[:, :, None, :, None]
        if references.shape[-1] == 2:
            scale = torch.tensor([(w, h) for h, w in sizes], device=query.device, dtype=references.dtype)
            locations = references + offsets / scale[:, None]
        else:
            locations = references[..., :2] + offsets / self.points * references[..., 2:] * 0.5
        sampled = sample_levels(
            values.view(B, -1, self.heads, D // self.heads),
            sizes,
            locations,
            weights.view(B, Q, self.heads, LEVELS, self.points).to(locations.dtype),
        )
        attended: Tensor = self.output_proj(sampled)
        return attended
