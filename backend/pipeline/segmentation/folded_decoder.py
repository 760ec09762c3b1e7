"""segment-anything's mask decoder with the image's projections folded into the few prompt tokens: the same algebra.

The two-way attention projects all image tokens (4,096 of ViT-B) to keys, values and queries, for about seven prompt
tokens. With a token's query q = W_q t and an image token's key k = W_k x + b, the score q k is (W_k' q) x + q b, and
the second term is the same for every image token, so that the softmax over them drops it: projecting the prompt tokens
instead costs nothing. Values and the attention in the other direction fold alike. Only rounding differs (relative
error about 1e-6); a decode takes about half of the multiplications.

What the first layer reads of the image no prompt has changed yet, but a mask prompt, which adds a few channels, mixed:
projected once an image (``FirstLook``), it costs a sixteenth of the folded products in each further decode.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["FirstLook", "FoldedDecoder", "as_matrix", "first_look", "pixels_in_rows", "two_way"]


class FirstLook(NamedTuple):
    """What the first layer reads of an image before a mask prompt, projected, and that prompt.

    Attributes:
        keys: float[heads, depth, h * w], for prompt tokens that look at the image.
        values: float[heads, h * w, depth], what they see.
        queries: float[heads, depth, h * w], for the image that looks at prompt tokens.
        dense: float[h * w, M], the channels that a mask prompt adds to the image's tokens; zeros without one.
        mixing: float[C, M], how it adds them.
    """

    keys: Tensor
    values: Tensor
    queries: Tensor
    dense: Tensor
    mixing: Tensor


class FoldedDecoder(nn.Module):
    """The mask decoder of ``sam`` for one image and one object's prompts; parameters are shared with it, none added.

    Args:
        sam: whose decoder is used; its weights may change later, nothing is precomputed from them.
    """

    image_pe: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.decoder = sam.mask_decoder
        self.prompt_encoder = sam.prompt_encoder
        height, width = sam.prompt_encoder.image_embedding_size
        self.grid = (int(height), int(width))
        with torch.no_grad():
            image_pe = sam.prompt_encoder.get_dense_pe()[0].flatten(1).T.contiguous()
        self.register_buffer("image_pe", image_pe, persistent=False)

    def image_tokens(self, embedding: Tensor, mask_logits: Tensor | None) -> Tensor:
        """``embedding`` float[h * w, C] and the dense prompt, ``mask_logits`` float[1, 1, 4 h, 4 w], added up."""
        if mask_logits is None:
            return cast(Tensor, embedding + self.prompt_encoder.no_mask_embed.weight)
        *scaling, last = self.prompt_encoder.mask_downscaling
        hidden = nn.Sequential(*scaling)(mask_logits)[0].flatten(1)
        return torch.addmm(embedding + last.bias, hidden.T, last.weight.flatten(1).T)

    def prompt_tokens(self, sparse: Tensor) -> Tensor:
        """The decoder's own tokens (IoU, masks) and those of the prompts, ``sparse`` float[N, C]."""
        return torch.cat((self.decoder.iou_token.weight, self.decoder.mask_tokens.weight, sparse))

    def forward(self, image_tokens: Tensor, prompt_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """All masks of the decoder and what it thinks of them.

        Args:
            image_tokens: float[h * w, C], from ``image_tokens``.
            prompt_tokens: from ``prompt_tokens``.

        Returns:
            logits float[masks, 4 h, 4 w] and predicted IoUs float[masks].
        """
        own = 1 + self.decoder.num_mask_tokens
        image, tokens = two_way(self.decoder.transformer, image_tokens, self.image_pe, prompt_tokens, own)
        weights = torch.stack([mlp(tokens[1 + i]) for i, mlp in enumerate(self.decoder.output_hypernetworks_mlps)])
        return self._masks(image, weights), self.decoder.iou_prediction_head(tokens[0])

    def _masks(self, image: Tensor, weights: Tensor) -> Tensor:
        """``output_upscaling`` and the product with ``weights`` float[masks, C / 8], as matrix products."""
        first, norm, activation, second, last = self.decoder.output_upscaling
        # A transposed convolution of stride and size 2 is a product that gives each token four, its 2 x 2 pixels.
        finer = functional.linear(image, as_matrix(first), first.bias.repeat(4)).view(-1, first.out_channels)
        finer = activation(functional.layer_norm(finer, finer.shape[-1:], norm.weight, norm.bias, norm.eps))
        finest = last(functional.linear(finer, as_matrix(second), second.bias.repeat(4)))
        return pixels_in_rows(weights @ finest.view(-1, second.out_channels).T, self.grid)


def first_look(transformer: Any, image: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and queries of a ``FirstLook`` at ``image`` float[h * w, C] without a mask prompt."""
    layer, placed = transformer.layers[0], image + image_pe
    looks, is_looked_at = layer.cross_attn_image_to_token, layer.cross_attn_token_to_image
    keys = functional.linear(placed, is_looked_at.k_proj.weight)  # a bias would be the same for all of the image
    values = functional.linear(image, is_looked_at.v_proj.weight)
    queries = functional.linear(placed, looks.q_proj.weight, looks.q_proj.bias)
    return (
        _heads(is_looked_at, keys).transpose(1, 2).contiguous(),
        _heads(is_looked_at, values).contiguous(),
        _heads(looks, queries).transpose(1, 2).contiguous(),
    )


def two_way(
    transformer: Any,
    image: Tensor,
    image_pe: Tensor,
    prompt_tokens: Tensor,
    wanted: int,
    first: FirstLook | None = None,
) -> tuple[Tensor, Tensor]:
    """segment-anything's ``TwoWayTransformer``, folded.

    Args:
        transformer: it, or what has its parts under its names.
        image: float[h * w, C], the image's tokens.
        image_pe: float[h * w, C], where they are.
        prompt_tokens: float[N, C].
        wanted: only what becomes of so many of them, the first ones, is wanted.
        first: what was projected of ``image`` before.

    Returns:
        What becomes of ``image`` and of the ``wanted`` first of ``prompt_tokens``.
    """
    tokens = prompt_tokens
    placed = image + image_pe
    for number, layer in enumerate(transformer.layers):
        known = first if number == 0 else None
        if layer.skip_first_layer_pe:
            tokens = _attend(layer.self_attn, tokens, tokens, tokens)
        else:
            query = tokens + prompt_tokens
            tokens = tokens + _attend(layer.self_attn, query, query, tokens)
        tokens = layer.norm1(tokens)
        query, attention = tokens + prompt_tokens, layer.cross_attn_token_to_image
        if known is None:
            found = _tokens_to_image(attention, query, placed, image)
        else:
            found = _tokens_to_known_image(attention, query, known)
        tokens = layer.norm2(tokens + found)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        told = _image_to_tokens(layer.cross_attn_image_to_token, placed, tokens + prompt_tokens, tokens, known)
        image = layer.norm4(image + told)
        placed = image + image_pe
    tokens = tokens[:wanted]
    query = tokens + prompt_tokens[:wanted]
    found = _tokens_to_image(transformer.final_attn_token_to_image, query, placed, image)
    return image, transformer.norm_final_attn(tokens + found)


def as_matrix(convolution: nn.ConvTranspose2d) -> Tensor:
    """float[4 * outputs, inputs] of a transposed 2 x 2 convolution of stride 2: a token gives four, row by row."""
    return convolution.weight.permute(2, 3, 1, 0).reshape(-1, convolution.in_channels)


def pixels_in_rows(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """float[K, h * w * 16], two times four pixels for one as ``as_matrix`` orders them, to float[K, 4 h, 4 w]."""
    height, width = grid
    parts = pixels.view(-1, height, width, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)  # rows before columns
    return parts.reshape(-1, 4 * height, 4 * width)


def _heads(attention: Attention, projected: Tensor) -> Tensor:
    """float[N, C] -> float[heads, N, C / heads]."""
    depth = attention.internal_dim // attention.num_heads
    return projected.view(-1, attention.num_heads, depth).transpose(0, 1)


def _attend(attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention among the few tokens, as published: float[N, C] each."""
    return cast(Tensor, attention(query[None], key[None], value[None])[0])


def _tokens_to_image(attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Prompt tokens ``query`` float[N, C] look at the image's ``key`` and ``value`` float[h * w, C]: float[N, C]."""
    heads = attention.num_heads
    depth = attention.internal_dim // heads
    scaled = _heads(attention, attention.q_proj(query) / math.sqrt(depth))
    folded = scaled @ attention.k_proj.weight.view(heads, depth, -1)
    # A softmax whose sum divides last, over columns: a compiler that fuses both products into one is slower here.
    scores = key @ folded.reshape(-1, key.shape[1]).T
    weights = torch.exp(scores - scores.amax(dim=0))
    seen = ((weights.T @ value) / weights.sum(dim=0)[:, None]).view(heads, -1, value.shape[1])
    projected = seen @ attention.v_proj.weight.view(heads, depth, -1).transpose(1, 2)
    mixed = projected.transpose(0, 1).reshape(query.shape[0], -1) + attention.v_proj.bias
    return cast(Tensor, attention.out_proj(mixed))


def _tokens_to_known_image(attention: Attention, query: Tensor, image: FirstLook) -> Tensor:
    """``_tokens_to_image`` where the image's keys and values are known but for a mask prompt: float[N, C]."""
    heads, count = attention.num_heads, query.shape[0]
    depth = attention.internal_dim // heads
    scaled = _heads(attention, attention.q_proj(query) / math.sqrt(depth))
    mixing = (attention.k_proj.weight @ image.mixing).view(heads, depth, -1)
    of_mask = (scaled @ mixing).reshape(heads * count, -1) @ image.dense.T
    scores = (scaled @ image.keys).reshape(heads * count, -1) + of_mask
    weights = torch.exp(scores - scores.amax(dim=1, keepdim=True))
    mixing = (attention.v_proj.weight @ image.mixing).view(heads, depth, -1)
    seen = weights.view(heads, count, -1) @ image.values
    seen = seen + (weights @ image.dense).view(heads, count, -1) @ mixing.transpose(1, 2)
    seen = seen / weights.sum(dim=1).view(heads, count, 1)
    return cast(Tensor, attention.out_proj(seen.transpose(0, 1).reshape(count, -1) + attention.v_proj.bias))


def _image_to_tokens(
    attention: Attention, query: Tensor, key: Tensor, value: Tensor, known: FirstLook | None
) -> Tensor:
    """The image's ``query`` float[h * w, C] looks at prompt tokens ``key``, ``value`` float[N, C]: float[h * w, C]."""
    heads = attention.num_heads
    depth = attention.internal_dim // heads
    keys = _heads(attention, attention.k_proj(key) / math.sqrt(depth))
    if known is None:
        folded = (keys @ attention.q_proj.weight.view(heads, depth, -1)).reshape(-1, query.shape[1])
        offset = keys @ attention.q_proj.bias.view(heads, depth, 1)
        scores = (folded @ query.T).view(heads, -1, query.shape[0]) + offset
    else:
        mixing = (attention.q_proj.weight @ known.mixing).view(heads, depth, -1)
        of_mask = (keys @ mixing).reshape(-1, known.dense.shape[1]) @ known.dense.T
        scores = keys @ known.queries + of_mask.view(heads, -1, query.shape[0])
    weights = torch.softmax(scores, dim=1).view(-1, query.shape[0])
    values = _heads(attention, attention.v_proj(value))
    outputs = values @ attention.out_proj.weight.view(-1, heads, depth).permute(1, 2, 0)
    # Every head's weights add up to 1, so that the output's bias can go into the values.
    folded_values = (outputs + attention.out_proj.bias / heads).reshape(-1, query.shape[1])
    return cast(Tensor, weights.T @ folded_values)
