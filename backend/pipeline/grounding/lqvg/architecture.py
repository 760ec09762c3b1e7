"""Sizes of an LQVG network; the defaults are those of the published weights."""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = 4
"""Feature levels: C3, C4, C5 of the ResNet and a strided convolution on C5 (strides 8, 16, 32, 64)."""


@dataclass(frozen=True)
class Architecture:
    """Everything that decides names and shapes of the network's parameters, and the number of attention heads.

    Attributes:
        hidden_dim: width of everything after the two encoders; a multiple of 64 (32 groups
            of the norm with two channels or more) and of ``heads``.
        heads: attention heads in the gates and in the deformable transformer.
        encoder_layers: layers of the deformable encoder.
        decoder_layers: layers of the deformable decoder.
        feedforward_dim: inner width of the transformer's feed-forward blocks.
        points: sampling points per head and level of the deformable attention.
        queries: language queries, each of which proposes one box.
        dropout: probability in training mode.
        resnet_blocks: bottleneck blocks in layer1 to layer4 (3, 4, 6, 3 is ResNet-50).
        resnet_width: ``width_per_group`` of the bottlenecks (64 is ResNet-50).
        text_dim: width of RoBERTa.
        text_layers: layers of RoBERTa.
        text_heads: attention heads of RoBERTa.
        text_feedforward_dim: inner width of RoBERTa's feed-forward blocks.
        vocabulary: entries of the byte-level BPE vocabulary.
        text_positions: rows of RoBERTa's position table; two of them are never used, so texts hold 2 tokens less.
    """

    hidden_dim: int = 256
    heads: int = 8
    encoder_layers: int = 4
    decoder_layers: int = 4
    feedforward_dim: int = 2048
    points: int = 4
    queries: int = 10
    dropout: float = 0.1
    resnet_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    resnet_width: int = 64
    text_dim: int = 768
    text_layers: int = 12
    text_heads: int = 12
    text_feedforward_dim: int = 3072
    vocabulary: int = 50265
    text_positions: int = 514

    def __post_init__(self) -> None:
        if self.hidden_dim % 64 or self.hidden_dim % self.heads:
            raise ValueError(f"hidden_dim must be a multiple of 64 and of heads={self.heads}, got {self.hidden_dim}")
