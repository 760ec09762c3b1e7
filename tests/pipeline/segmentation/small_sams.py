"""Small networks with random weights for tests."""

from __future__ import annotations

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from backend.pipeline.segmentation.compact_sam import build_compact_sam


def small_vit_sam(seed: int = 0) -> Sam:
    """segment-anything's ViT model at toy size: 64 pixel input, 4 x 4 embedding, 16 x 16 low-resolution masks."""
    torch.manual_seed(seed)
    dim = 16
    encoder = ImageEncoderViT(
        depth=2,
        embed_dim=32,
        img_size=64,
        mlp_ratio=2,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_heads=2,
        patch_size=16,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=(1,),
        window_size=2,
        out_chans=dim,
    )
    prompts = PromptEncoder(embed_dim=dim, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=4)
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=32, num_heads=2),
        transformer_dim=dim,
        iou_head_depth=3,
        iou_head_hidden_dim=16,
    )
    return Sam(encoder, prompts, decoder).eval()


def small_compact_sam(seed: int = 0, img_size: int = 64) -> Sam:
    """The compact architecture with few channels."""
    torch.manual_seed(seed)
    return build_compact_sam(img_size, embed_dim=32, widths=(8, 8, 16, 16, 16), depths=(1, 1, 1, 1), mlp_dim=32).eval()
