"""SAM 2's encoder in the order of its windows gives what the library's gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from backend.pipeline.segmentation.hf_decoder import ImageSide
from backend.pipeline.segmentation.hiera_encoder import HieraRows, is_hiera


def _sam2(side: int, windows: list[int], **more: Any) -> Any:
    """Few channels, all parameters random, positions among them."""
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[side, side], blocks_per_stage=[1, 2, 4, 2],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=windows,
        **{"window_positional_embedding_background_size": [7, 7], "global_attention_blocks": [5], **more},
    )  # fmt: skip
    grid = side // 4
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone.to_dict(), backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
        backbone_feature_sizes=[[grid, grid], [grid // 2, grid // 2], [grid // 4, grid // 4]],
    )  # fmt: skip
    prompts = transformers.Sam2PromptEncoderConfig(hidden_size=32, image_size=side, patch_size=16)
    decoder = transformers.Sam2MaskDecoderConfig(hidden_size=32, mlp_dim=32, num_attention_heads=2)
    torch.manual_seed(0)
    parts = {"vision_config": vision, "prompt_encoder_config": prompts, "mask_decoder_config": decoder}
    config = transformers.Sam2Config(**{name: part.to_dict() for name, part in parts.items()})
    model = transformers.Sam2Model(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "pos" in name or "memory" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(
    ("side", "windows"),
    [
        (256, [8, 4, 14, 7]),  # the published sizes; 16 tokens take one window of 14 and a border of 2
        (224, [8, 4, 14, 7]),
        (160, [8, 4, 16, 8]),  # of the large model; windows larger than the image
        (128, [8, 4, 6, 3]),
    ],
)
def test_features_are_the_library_s(side: int, windows: list[int]) -> None:
    model = _sam2(side, windows)
    assert is_hiera(model)
    pixels = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        theirs, ours = ImageSide(model)(pixels), HieraRows(model)(pixels)
    assert [one.shape for one in ours] == [one.shape for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert other.std() > 0.1
        assert (one - other).abs().max() <= 1e-6 * other.abs().max()


def test_an_encoder_of_another_form_is_left_to_the_library() -> None:
    assert not is_hiera(torch.nn.Linear(2, 2))
    assert not is_hiera(_sam2(128, [5, 4, 6, 3]))  # 2 x 2 tokens of different windows are pooled together
    assert not is_hiera(_sam2(128, [8, 4, 6, 3], num_query_pool_stages=2))
