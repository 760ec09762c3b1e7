"""Multi-scale cross-modal alignment: words and image features gate one another (SPEC: bidirectional gating)."""

from __future__ import annotations

from torch import Tensor, nn


class TextResizer(nn.Module):
    """Brings word features from RoBERTa's width to the transformer's."""

    def __init__(self, text_dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.fc = nn.Linear(text_dim, hidden_dim)
        # 1e-12 is the original's value. With the torch default the outputs differ by 1e-5 only, so nothing would show.
        self.layer_norm = nn.LayerNorm(hidden_dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: Tensor) -> Tensor:
        """float32[B, L, text_dim] -> float32[B, L, hidden_dim]."""
        resized: Tensor = self.dropout(self.layer_norm(self.fc(words)))
        return resized


class CrossModalGate(nn.Module):
    """Multiplies one modality by what it attends to in the other; no residual, no norm, no feed-forward block."""

    def __init__(self, hidden_dim: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(hidden_dim, heads, dropout=0.0, batch_first=True)

    def forward(self, gated: Tensor, other: Tensor, other_position: Tensor, other_padding: Tensor) -> Tensor:
        """``gated`` [B, N, D] times its attention over ``other`` [B, M, D].

        Args:
            gated: float32[B, N, D], the modality that is gated; also the attention's query, without a position code.
            other: float32[B, M, D], the attention's values.
            other_position: float32[B, M, D], added to ``other`` for the keys.
            other_padding: bool[B, M], True = padding, not attended to.

        Returns:
            float32[B, N, D].
        """
        attended: Tensor = self.multihead_attn(
            gated, other + other_position, other, key_padding_mask=other_padding, need_weights=False
        )[0]
        return gated * attended


class SentencePool(nn.Module):
    """The sentence vector: tanh of a linear map of the first token ``<s>``."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, words: Tensor) -> Tensor:
        """float32[B, L, D] -> float32[B, D]."""
        sentence: Tensor = self.dense(words[:, 0]).tanh()
        return sentence
