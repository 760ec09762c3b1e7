"""A tiny SAM 3 of transformers with random weights, saved as the published checkpoint is: detector and tracker in one
folder of type ``sam3_video``; or the detector alone, with SAM 3's text encoder or LiteText's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SIDE = 56
"""Pixels of the square that images become; the published models read 1008."""


def _vision() -> dict[str, Any]:
    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": SIDE, "patch_size": 14, "window_size": 2, "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }  # fmt: skip
    sizes = [[16, 16], [8, 8], [4, 4]]
    return {
        "model_type": "sam3_vision_model", "backbone_config": backbone, "fpn_hidden_size": 32,
        "backbone_feature_sizes": sizes,
    }  # fmt: skip


def detector_config(*, lite: bool = False) -> Any:
    import transformers

    part = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 16, "projection_dim": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 32, "vocab_size": 96,
    }  # fmt: skip
    if lite:
        text |= {"num_hidden_layers": 3, "repmixer_kernel_size": 3}
    else:
        text |= {"model_type": "clip_text_model", "hidden_act": "gelu", "eos_token_id": 2, "bos_token_id": 1}
        text |= {"pad_token_id": 2}
    make = transformers.Sam3LiteTextConfig if lite else transformers.Sam3Config
    return make(
        vision_config=_vision(), text_config=text, geometry_encoder_config=dict(part), detr_encoder_config=dict(part),
        detr_decoder_config=part | {"num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )  # fmt: skip


def tracker_config(kind: Any) -> Any:
    prompt = {"hidden_size": 32, "image_size": SIDE, "patch_size": 14, "mask_input_channels": 4}
    decoder = {"hidden_size": 32, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    return kind(vision_config=_vision(), prompt_encoder_config=prompt, mask_decoder_config=decoder)


def clip_tokenizer() -> Any:
    import transformers

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["!", "<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return transformers.CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])


def _images() -> Any:
    import transformers

    return transformers.Sam3ImageProcessor(
        size={"height": SIDE, "width": SIDE}, mask_size={"height": SIDE // 14 * 4, "width": SIDE // 14 * 4}
    )


def write_sam3(folder: Path) -> Path:
    """Detector and tracker as in facebook/sam3."""
    import transformers

    torch.manual_seed(0)
    tracker = tracker_config(transformers.Sam3TrackerVideoConfig)
    tracker.image_size = SIDE
    for name, value in {
        "memory_attention_hidden_size": 32, "memory_attention_num_layers": 1, "memory_attention_num_attention_heads": 1,
        "memory_attention_feed_forward_hidden_size": 16, "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 16, "mask_downsampler_embed_dim": 32, "memory_fuser_num_layers": 1,
        "memory_fuser_embed_dim": 32, "memory_fuser_intermediate_dim": 16,
        "memory_attention_rope_feat_sizes": [4, 4],
    }.items():  # fmt: skip
        setattr(tracker, name, value)
    config = transformers.Sam3VideoConfig(detector_config=detector_config(), tracker_config=tracker)
    model = transformers.Sam3VideoModel(config)
    for module in (model.detector_model.detr_decoder, model.detector_model.mask_decoder):
        _livelier(module)
    torch.nn.init.constant_(model.detector_model.detr_decoder.presence_head.layer3.bias, 6.0)  # sees whatever is asked
    model.save_pretrained(folder)
    # transformers 5.23 writes the tracker's prefix twice; the published file has it once.
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.replace("tracker_model.tracker_model.", "tracker_model."): one for name, one in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    transformers.Sam3Processor(_images(), clip_tokenizer()).save_pretrained(folder)
    return folder


def write_sam3_detector(folder: Path, *, lite: bool = False) -> Path:
    """The detector alone."""
    import transformers

    torch.manual_seed(0)
    kind = transformers.Sam3LiteTextModel if lite else transformers.Sam3Model
    model: Any = kind(detector_config(lite=lite))
    for module in (model.detr_decoder, model.mask_decoder):
        _livelier(module)
    model.save_pretrained(folder)
    transformers.Sam3Processor(_images(), clip_tokenizer()).save_pretrained(folder)
    return folder


@torch.no_grad()
def _livelier(module: Any) -> None:
    """Random weights of the usual size give the same box and mask for every query."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.mul_(8)
