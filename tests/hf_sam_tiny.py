"""Tiny SAM, SAM-HQ, SAM 2 and EdgeTAM models of transformers with random weights, as ``save_pretrained`` saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save_sam(folder: Path, high_quality: bool) -> None:
    import transformers

    prefix = "SamHQ" if high_quality else "Sam"

    def config(part: str) -> Any:
        return getattr(transformers, f"{prefix}{part}Config")

    vision = config("Vision")(
        hidden_size=16, output_channels=16, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=8,
        window_size=2, global_attn_indexes=[1], num_pos_feats=8, mlp_dim=32,
    )  # fmt: skip
    prompt = config("PromptEncoder")(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4)
    sizes = {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    if high_quality:
        sizes["vit_dim"] = 16
    decoder = config("MaskDecoder")(**sizes)
    model_config = config("")(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(), mask_decoder_config=decoder.to_dict()
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{prefix}Model")(model_config)
    images = transformers.SamImageProcessor(
        size={"longest_edge": 64}, mask_size={"longest_edge": 32},
        pad_size={"height": 64, "width": 64}, mask_pad_size={"height": 32, "width": 32},
    )  # fmt: skip
    model.save_pretrained(folder)
    getattr(transformers, f"{prefix}Processor")(images).save_pretrained(folder)


def save_sam2(folder: Path) -> None:
    import transformers

    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 2], window_positional_embedding_background_size=[4, 4],
        global_attention_blocks=[3],
    )  # fmt: skip
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone.to_dict(), backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]], fpn_hidden_size=32,
    )  # fmt: skip
    _save_like_sam2(folder, "Sam2", vision)


def save_edgetam(folder: Path) -> None:
    """EdgeTAM with its own backbone, RepViT-M1 of timm."""
    import transformers

    backbone = transformers.TimmWrapperConfig(
        architecture="repvit_m1", model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    )
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=backbone.to_dict(), backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]], fpn_hidden_size=32
    )
    _save_like_sam2(folder, "EdgeTam", vision)


def _save_like_sam2(folder: Path, prefix: str, vision: Any) -> None:
    import transformers

    def part(name: str) -> Any:
        return getattr(transformers, f"{prefix}{name}")

    prompt = part("PromptEncoderConfig")(hidden_size=32, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = part("MaskDecoderConfig")(hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    torch.manual_seed(0)
    model = part("Model")(
        part("Config")(
            vision_config=vision.to_dict(),
            prompt_encoder_config=prompt.to_dict(),
            mask_decoder_config=decoder.to_dict(),
        )
    )
    images = transformers.Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})
    model.save_pretrained(folder)
    transformers.Sam2Processor(images, target_size=64).save_pretrained(folder)


def write_sam_hq(folder: Path) -> None:
    """SAM-HQ."""
    save_sam(folder, high_quality=True)
