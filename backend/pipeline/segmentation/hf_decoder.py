"""The mask decoders of transformers' SAMs (SAM, SAM-HQ, SAM 2, EdgeTAM, SAM 3's tracker), folded (``folded_decoder``).

What a decoder needs of the image and what does not depend on prompts is computed with the embedding, in the order in
which the decoder reads it: the image's tokens, and the finer features that SAM 2 and SAM-HQ add while they enlarge.
Each token of the image stands for 4 x 4 pixels of the mask: "finer" rows are its 2 x 2, "finest" rows its 4 x 4.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from segment_anything.modeling import TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional

from backend.pipeline.segmentation.folded_decoder import FirstLook, as_matrix, first_look, pixels_in_rows, two_way

__all__ = ["FoldedHfDecoder", "ImageSide", "feature_shapes"]


class ImageSide(nn.Module):
    """The encoder of ``model`` and all else of it that no prompt changes.

    Args:
        model: ``SamModel``, ``SamHQModel``, ``Sam2Model``, ``EdgeTamModel`` or ``Sam3TrackerModel``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """float32[1, 3, S, S] -> tokens float[h * w, C], then the finest and the finer rows as far as there are any."""
        found = self.model.get_image_embeddings(pixel_values)
        if isinstance(found, Tensor):
            return (_rows(found, 1),)
        if isinstance(found, list):
            finest, finer, image = found
            return _rows(image, 1), _rows(finest, 4), _rows(finer, 2)
        image, intermediate = found
        return _rows(image, 1), _rows(self._high_quality(image, intermediate[0]), 4)

    def _high_quality(self, image: Tensor, first_global: Tensor) -> Tensor:
        """What SAM-HQ adds to its extra mask: features of the first global block and of the encoder's end, enlarged."""
        decoder = self.model.mask_decoder
        late = decoder.encoder_conv2(decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(image))))
        early = decoder.compress_vit_conv1(first_global.permute(0, 3, 1, 2))
        return cast(Tensor, late + decoder.compress_vit_conv2(decoder.activation(decoder.compress_vit_norm(early))))


class FoldedHfDecoder(nn.Module):
    """The mask decoder of ``model`` for one image and one object's prompts; parameters are shared with it.

    Args:
        model: as of ``ImageSide``; its weights may change later, nothing is precomputed from them.

    Attributes:
        image_pe: float[h * w, C], where the image's tokens are.
    """

    image_pe: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = model.mask_decoder
        self.prompt_encoder = model.prompt_encoder
        self.transformer = _under_published_names(self.decoder)
        height, width = model.prompt_encoder.image_embedding_size
        self.grid = (int(height), int(width))
        self.high_quality = hasattr(self.decoder, "hq_token")
        own = [self.decoder.iou_token, self.decoder.mask_tokens]
        if hasattr(self.decoder, "obj_score_token"):
            own.insert(0, self.decoder.obj_score_token)
        elif self.high_quality:
            own.append(self.decoder.hq_token)
        self.own_tokens = nn.ModuleList(own)
        self._iou = own.index(self.decoder.iou_token)
        with torch.no_grad():
            image_pe = model.get_image_wide_positional_embeddings()[0].flatten(1).T.contiguous()
        self.register_buffer("image_pe", image_pe, persistent=False)

    def prompt_tokens(self, sparse: Tensor | None) -> Tensor:
        """The decoder's own tokens and those of the prompts, ``sparse`` float[N, C]."""
        own = [cast(nn.Embedding, one).weight for one in self.own_tokens]
        return torch.cat(own if sparse is None else [*own, sparse])

    def image_side(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``tokens`` float[h * w, C] of ``ImageSide`` where no mask is a prompt, then keys, values and queries
        of a ``FirstLook`` at them: what further decodes of the image need not do again.
        """
        without_mask = tokens + self.prompt_encoder.no_mask_embed.weight
        return without_mask, *first_look(self.transformer, without_mask, self.image_pe)

    def dense_prompt(self, mask: Tensor | None) -> Tensor:
        """A mask prompt float[1, 1, 4 h, 4 w], as the channels float[h * w, M] that ``mixing`` adds to the image's."""
        embed = self.prompt_encoder.mask_embed
        channels = embed.conv3.in_channels
        if mask is None:
            return torch.zeros(len(self.image_pe), channels + 1, device=self.image_pe.device)
        hidden = embed.activation(embed.layer_norm1(embed.conv1(mask)))
        hidden = embed.activation(embed.layer_norm2(embed.conv2(hidden)))[0].flatten(1).T
        return functional.pad(hidden, (0, 1), value=1.0)  # the last stands for what is added instead of no mask's own

    def mixing(self) -> Tensor:
        """float[C, M]: what the channels of ``dense_prompt`` add to the image's tokens."""
        last = self.prompt_encoder.mask_embed.conv3
        instead = last.bias - self.prompt_encoder.no_mask_embed.weight[0]
        return torch.cat((last.weight.flatten(1), instead[:, None]), dim=1)

    def forward(
        self,
        image_tokens: Tensor,
        prompt_tokens: Tensor,
        keys: Tensor,
        values: Tensor,
        queries: Tensor,
        dense: Tensor,
        finest: Tensor | None = None,
        finer: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """All masks of the decoder and what it thinks of them.

        Args:
            image_tokens: float[h * w, C], of ``image_side``, and of a mask prompt ``dense @ mixing.T`` added.
            prompt_tokens: from ``prompt_tokens``.
            keys, values, queries: of ``image_side``.
            dense: from ``dense_prompt``.
            finest: float[h * w * 16, C / 8], of ``ImageSide``.
            finer: float[h * w * 4, C / 4], of ``ImageSide``.

        Returns:
            logits float[masks, 4 h, 4 w] and predicted IoUs float[masks]. SAM-HQ's extra mask is added to each.
        """
        decoder = self.decoder
        own = sum(cast(nn.Embedding, one).num_embeddings for one in self.own_tokens)
        known = FirstLook(keys, values, queries, dense, self.mixing())
        image, tokens = two_way(self.transformer, image_tokens, self.image_pe, prompt_tokens, own, known)
        first, norm, second = decoder.upscale_conv1, decoder.upscale_layer_norm, decoder.upscale_conv2
        rows = functional.linear(image, as_matrix(first), first.bias.repeat(4)).view(-1, first.out_channels)
        rows = rows if finer is None else rows + finer
        rows = decoder.activation(functional.layer_norm(rows, rows.shape[-1:], norm.weight, norm.bias, norm.eps))
        rows = functional.linear(rows, as_matrix(second), second.bias.repeat(4)).view(-1, second.out_channels)
        rows = decoder.activation(rows if finest is None or self.high_quality else rows + finest)
        of_mask = tokens[self._iou + 1 :]
        weights = torch.stack([mlp(of_mask[i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)])
        masks = pixels_in_rows(weights @ rows.T, self.grid)
        if self.high_quality and finest is not None:
            masks = masks + self._extra_mask(decoder.hq_mask_mlp(of_mask[len(weights)]), rows, finest)
        return masks, decoder.iou_prediction_head(tokens[self._iou])

    def _extra_mask(self, weights: Tensor, rows: Tensor, finest: Tensor) -> Tensor:
        """SAM-HQ's mask float[4 h, 4 w]. Of its last 3 x 3 convolution one channel is wanted, the one that ``weights``
        float[C / 8] mix: nine products and a sum of shifted planes.
        """
        decoder = self.decoder
        last: nn.Conv2d = decoder.mask_conv2
        hidden = decoder.mask_conv1(pixels_in_rows(rows.T, self.grid)[None])
        hidden = decoder.activation(decoder.mask_norm(hidden))[0]
        taps = (weights @ last.weight.flatten(1)).view(last.in_channels, 9).T @ hidden.flatten(1)
        height, width = hidden.shape[1:]
        padded = functional.pad(taps.view(9, height, width), (1, 1, 1, 1))
        shifted = [padded[i, i // 3 : i // 3 + height, i % 3 : i % 3 + width] for i in range(9)]
        mixed: Tensor = torch.stack(shifted).sum(0) + weights @ cast(Tensor, last.bias)
        return mixed + pixels_in_rows(weights @ finest.T, self.grid)[0]


def feature_shapes(model: Any) -> list[tuple[int, int]]:
    """Shapes of what ``ImageSide`` makes of an image."""
    tokens = model.prompt_encoder.image_embedding_size[0] * model.prompt_encoder.image_embedding_size[1]
    dim = model.mask_decoder.hidden_size
    shapes = [(tokens, dim), (16 * tokens, dim // 8), (4 * tokens, dim // 4)]
    if hasattr(model.mask_decoder, "obj_score_token"):
        return shapes
    return shapes[: 2 if hasattr(model.mask_decoder, "hq_token") else 1]


def _rows(features: Tensor, factor: int) -> Tensor:
    """float[1, C, factor * h, factor * w] -> float[h * w * factor^2, C] as ``as_matrix`` orders them; 1, 2 or 4."""
    channels, height, width = features.shape[1:]
    if factor == 1:
        return features[0].flatten(1).T
    if factor == 2:
        parts = features.view(channels, height // 2, 2, width // 2, 2).permute(1, 3, 2, 4, 0)
    else:
        parts = features.view(channels, height // 4, 2, 2, width // 4, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)
    return parts.reshape(-1, channels)


def _under_published_names(decoder: Any) -> TwoWayTransformer:
    """segment-anything's transformer around the layers of the library's."""
    theirs = decoder.transformer
    config, attention = theirs.config, theirs.final_attn_token_to_image
    heads, rate = config.num_attention_heads, decoder.hidden_size // attention.internal_dim
    with torch.device("meta"):
        ours = TwoWayTransformer(len(theirs.layers), decoder.hidden_size, heads, 1, attention_downsample_rate=rate)
    for layer, given in zip(ours.layers, theirs.layers, strict=True):
        for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            _share(getattr(layer, name), getattr(given, name))
        for number in range(1, 5):
            setattr(layer, f"norm{number}", getattr(given, f"layer_norm{number}"))
        layer.mlp = given.mlp
    _share(ours.final_attn_token_to_image, attention)
    ours.norm_final_attn = theirs.layer_norm_final_attn
    return ours


def _share(attention: Any, given: Any) -> None:
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(attention, name, getattr(given, name))
    attention.out_proj = given.o_proj if hasattr(given, "o_proj") else given.out_proj
