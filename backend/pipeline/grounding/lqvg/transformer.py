"""Deformable DETR's encoder and decoder with iterative box refinement; post-norm, ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backend.pipeline.grounding.lqvg.architecture import LEVELS, Architecture
from backend.pipeline.grounding.lqvg.deformable import DeformableAttention


@dataclass(frozen=True, eq=False)
class FeatureLevel:
    """One gated feature level.

    Attributes:
        features: float32[B, D, H, W].
        padding: bool[B, H, W], True = padding.
        position: float32[B, D, H, W], sine code without the level embedding.
    """

    features: Tensor
    padding: Tensor
    position: Tensor


class EncoderLayer(nn.Module):
    """Deformable self-attention over all levels, then a feed-forward block."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        D = architecture.hidden_dim
        self.self_attn = DeformableAttention(D, architecture.heads, architecture.points)
        self.norm1 = nn.LayerNorm(D)
        self.linear1 = nn.Linear(D, architecture.feedforward_dim)
        self.linear2 = nn.Linear(architecture.feedforward_dim, D)
        self.norm2 = nn.LayerNorm(D)
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(
        self, x: Tensor, position: Tensor, references: Tensor, sizes: Sequence[tuple[int, int]], padding: Tensor
    ) -> Tensor:
        """float32[B, S, D] -> float32[B, S, D]; the arguments are those of ``DeformableAttention``."""
        x = self.norm1(x + self.dropout(self.self_attn(x + position, references, x, sizes, padding)))
        feedforward = self.linear2(self.dropout(self.linear1(x).relu()))
        out: Tensor = self.norm2(x + self.dropout(feedforward))
        return out


class DecoderLayer(nn.Module):
    """Self-attention among the queries, deformable attention to the image, feed-forward block.

    The norms are numbered as in the checkpoint, which is not their order: norm2, norm1, norm3.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        D = architecture.hidden_dim
        self.cross_attn = DeformableAttention(D, architecture.heads, architecture.points)
        self.norm1 = nn.LayerNorm(D)
        self.self_attn = nn.MultiheadAttention(D, architecture.heads, dropout=architecture.dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(D)
        self.linear1 = nn.Linear(D, architecture.feedforward_dim)
        self.linear2 = nn.Linear(architecture.feedforward_dim, D)
        self.norm3 = nn.LayerNorm(D)
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        references: Tensor,
        memory: Tensor,
        sizes: Sequence[tuple[int, int]],
        padding: Tensor,
    ) -> Tensor:
        """float32[B, Q, D] -> float32[B, Q, D]; ``memory`` [B, S, D] is the encoder's output."""
        query = x + position
        x = self.norm2(x + self.dropout(self.self_attn(query, query, x, need_weights=False)[0]))
        x = self.norm1(x + self.dropout(self.cross_attn(x + position, references, memory, sizes, padding)))
        feedforward = self.linear2(self.dropout(self.linear1(x).relu()))
        out: Tensor = self.norm3(x + self.dropout(feedforward))
        return out


class Encoder(nn.Module):
    """A stack of encoder layers over the concatenated levels."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(architecture) for _ in range(architecture.encoder_layers))

    def forward(
        self, x: Tensor, position: Tensor, sizes: Sequence[tuple[int, int]], valid_ratios: Tensor, padding: Tensor
    ) -> Tensor:
        """float32[B, S, D] -> float32[B, S, D]; ``valid_ratios`` float32[B, levels, 2] in the order (x, y)."""
        references = _cell_centers(sizes, valid_ratios)
        for layer in self.layers:
            x = layer(x, position, references, sizes, padding)
        return x


class Decoder(nn.Module):
    """A stack of decoder layers, each of which moves the queries' boxes on."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(architecture) for _ in range(architecture.decoder_layers))

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        references: Tensor,
        memory: Tensor,
        sizes: Sequence[tuple[int, int]],
        valid_ratios: Tensor,
        padding: Tensor,
        box_heads: nn.ModuleList,
    ) -> tuple[Tensor, Tensor]:
        """Hidden states float32[layers, B, Q, D] and refined boxes float32[layers, B, Q, 4] (cx, cy, w, h) in 0..1."""
        hidden, boxes = [], []
        for layer, box_head in zip(self.layers, box_heads, strict=True):
            ratios = valid_ratios.repeat(1, 1, references.shape[-1] // 2)
            x = layer(x, position, references[:, :, None] * ratios[:, None], memory, sizes, padding)
            delta = box_head(x).float()
            known = references.shape[-1]
            delta = torch.cat((delta[..., :known] + inverse_sigmoid(references), delta[..., known:]), dim=-1)
            hidden.append(x)
            boxes.append(delta.sigmoid())
            # The next layer starts from the box as a constant: each layer's loss trains that layer's head only.
            references = boxes[-1].detach()
        return torch.stack(hidden), torch.stack(boxes)


class DeformableTransformer(nn.Module):
    """From gated feature levels and the sentence to hidden states and boxes of every decoder layer."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        D = architecture.hidden_dim
        self.level_embed = nn.Parameter(torch.empty(LEVELS, D))
        self.encoder = Encoder(architecture)
        self.decoder = Decoder(architecture)
        self.reference_points = nn.Linear(D, 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Deformable DETR's start: Xavier for every matrix, then each deformable attention's own pattern."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()
        nn.init.zeros_(self.reference_points.bias)
        nn.init.normal_(self.level_embed)

    def forward(
        self, levels: Sequence[FeatureLevel], sentence: Tensor, query_position: Tensor, box_heads: nn.ModuleList
    ) -> tuple[Tensor, Tensor]:
        """Encode the levels and decode the queries.

        Args:
            levels: the gated features, finest first.
            sentence: float32[B, D], content of every query.
            query_position: float32[Q, D].
            box_heads: one per decoder layer, float32[B, Q, D] -> [B, Q, 4].

        Returns:
            Hidden states float32[layers, B, Q, D], boxes float32[layers, B, Q, 4] (cx, cy, w, h) in 0..1.
        """
        sizes = [(level.features.shape[-2], level.features.shape[-1]) for level in levels]
        features = torch.cat([level.features.flatten(2) for level in levels], dim=2).transpose(1, 2)
        position = torch.cat(
            [level.position.flatten(2) + embed[:, None] for level, embed in zip(levels, self.level_embed, strict=True)],
            dim=2,
        ).transpose(1, 2)
        padding = torch.cat([level.padding.flatten(1) for level in levels], dim=1)
        ratios = torch.stack([_valid_ratio(level.padding) for level in levels], dim=1)
        memory = self.encoder(features, position, sizes, ratios, padding)

        query_position = query_position.expand(len(sentence), -1, -1)
        content = sentence[:, None].expand_as(query_position)
        references = self.reference_points(query_position).float().sigmoid()
        hidden, boxes = self.decoder(content, query_position, references, memory, sizes, ratios, padding, box_heads)
        return hidden, boxes


def inverse_sigmoid(x: Tensor) -> Tensor:
    """The logit of ``x`` in 0..1, bounded by clamping both sides of the ratio to 1e-5."""
    x = x.clamp(0.0, 1.0)
    return torch.log(x.clamp(min=1e-5) / (1 - x).clamp(min=1e-5))


def _valid_ratio(padding: Tensor) -> Tensor:
    """The share of columns and rows that are not padding: bool[B, H, W] -> float32[B, 2] in the order (x, y)."""
    valid = (~padding).float()
    return torch.stack((valid[:, 0].mean(dim=1), valid[:, :, 0].mean(dim=1)), dim=-1)


def _cell_centers(sizes: Sequence[tuple[int, int]], valid_ratios: Tensor) -> Tensor:
    """Every cell's centre as seen on every level: float32[B, S, levels, 2], (x, y) in 0..1 of the padded level."""
    device = valid_ratios.device
    centers = []
    for level, (height, width) in enumerate(sizes):
        y = torch.arange(height, device=device, dtype=torch.float32) + 0.5
        x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).view(1, -1, 2)
        extent = valid_ratios[:, None, level] * torch.tensor((width, height), device=device)
        centers.append(grid / extent)
    return torch.cat(centers, dim=1)[:, :, None] * valid_ratios[:, None]
