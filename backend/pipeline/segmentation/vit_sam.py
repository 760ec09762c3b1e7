"""segment-anything's own checkpoints (ViT-B, ViT-L, ViT-H) through the same ``SamSegmenter`` as the compact model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from backend.pipeline.segmentation.sam import Autocast, EmbeddingDtype, Engine, SamSegmenter
from backend.pipeline.weights.refusals import refusal
from dataset_tools.errors import WeightsError

__all__ = ["load_sam"]

_ENCODER_MARKS = {"image_encoder.pos_embed", "image_encoder.patch_embed.proj.weight"}
_DECODER_HEADS = 8  # of every published checkpoint; the only size that no tensor's shape tells


def load_sam(
    weights: Path,
    *,
    embedding_dtype: EmbeddingDtype = "float16",
    device: str = "cpu",
    threads: int | None = None,
    autocast: Autocast = False,
    engine: Engine = "torch",
) -> SamSegmenter:
    """The model of a checkpoint under segment-anything's names; its size is read from the checkpoint.

    Args:
        weights: ``sam_vit_{b,l,h}_*.pth`` as published.
        embedding_dtype: type of stored features, see ``SamSegmenter``.
        device: where the network runs; ``auto`` takes a GPU when there is one.
        threads: torch's threads, a setting of the whole process; None leaves it alone.
        autocast: run the encoder in half precision, see ``SamSegmenter``.
        engine: what runs the networks, see ``SamSegmenter``.

    Raises:
        WeightsError: the file is missing, damaged, or holds another model.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise WeightsError(
            f"the SAM checkpoint {weights} is missing: run pslg weights list to see how to get it"
        ) from error
    except Exception as error:  # unpickling damaged data raises whatever it likes
        raise refusal(weights, error) from error
    if not isinstance(state, dict) or not state.keys() >= _ENCODER_MARKS:
        raise WeightsError(
            f"{weights} holds no SAM of segment-anything (ViT-B, ViT-L, ViT-H): choose a file sam_vit_b, sam_vit_l or "
            "sam_vit_h"
        )
    try:
        sam = _build(state)
        sam.load_state_dict(state)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{weights} is not a complete SAM checkpoint: {error}") from error
    return SamSegmenter(
        sam, embedding_dtype=embedding_dtype, device=device, threads=threads, autocast=autocast, engine=engine
    )


def _build(state: Mapping[str, Tensor]) -> Sam:
    """segment-anything's ``Sam`` with random weights, of the sizes that the tensors of ``state`` have."""
    patches = state["image_encoder.patch_embed.proj.weight"]
    width, patch = patches.shape[0], patches.shape[-1]
    grid = state["image_encoder.pos_embed"].shape[1]
    depth = _count(state, r"image_encoder\.blocks\.(\d+)\.")
    # Relative positions of a block reach 2 * window - 1; those of a global block over the whole grid.
    reaches = [state[f"image_encoder.blocks.{index}.attn.rel_pos_h"].shape for index in range(depth)]
    windows = [(reach[0] + 1) // 2 for reach in reaches]
    side, dim = grid * patch, state["image_encoder.neck.0.weight"].shape[0]
    transformer = "mask_decoder.transformer.layers"
    return Sam(
        ImageEncoderViT(
            depth=depth,
            embed_dim=width,
            img_size=side,
            mlp_ratio=state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_heads=width // reaches[0][1],
            patch_size=patch,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=tuple(index for index, window in enumerate(windows) if window == grid),
            window_size=min(windows),
            out_chans=dim,
        ),
        PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(grid, grid),
            input_image_size=(side, side),
            mask_in_chans=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        ),
        MaskDecoder(
            num_multimask_outputs=state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
            transformer=TwoWayTransformer(
                depth=_count(state, re.escape(transformer) + r"\.(\d+)\."),
                embedding_dim=dim,
                mlp_dim=state[f"{transformer}.0.mlp.lin1.weight"].shape[0],
                num_heads=_DECODER_HEADS,
            ),
            transformer_dim=dim,
            iou_head_depth=_count(state, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
            iou_head_hidden_dim=state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
        ),
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbered parts there are: one more than the highest number that ``pattern`` captures."""
    return 1 + max(int(match[1]) for name in state if (match := re.match(pattern, name)))
