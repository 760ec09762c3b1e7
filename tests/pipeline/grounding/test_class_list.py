"""Detectors of a class list against the library's own post-processing, on tiny random models saved to disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from backend.pipeline.grounding.class_list import ClassListGrounder, load_omdet_turbo, load_owlv2
from backend.pipeline.grounding.open_vocabulary import Phrase
from dataset_tools.errors import WeightsError
from tests.sam3_tiny import clip_tokenizer

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
PHRASES = [Phrase("vessel", "ship"), Phrase("ship", "ship"), Phrase("storage tank", "storagetank")]
SIZE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {"vocab_size": 96, "max_position_embeddings": 77, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def save_owl(folder: Path, prefix: str) -> None:
    def part(name: str) -> Any:
        return getattr(transformers, f"{prefix}{name}")

    config = part("Config")(
        text_config=SIZE | TEXT | {"max_position_embeddings": 16},
        vision_config=SIZE | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    model = part("ForObjectDetection")(config)
    with torch.no_grad():  # so small a model's random heads are sure of everything
        for head in (model.class_head.logit_shift, model.class_head.logit_scale, model.box_head.dense2):
            head.weight.mul_(0.02)
            head.bias.zero_()
        model.box_head.dense2.bias.copy_(torch.tensor([0.0, 0.0, 2.0, 2.0]))
    model.save_pretrained(folder)
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 16
    part("Processor")(part("ImageProcessor")(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)


def save_omdet_turbo(folder: Path) -> None:
    backbone = transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2, out_indices=[2, 3, 4]
    )
    text = transformers.CLIPTextConfig(**SIZE | TEXT | {"hidden_size": 24})
    config = transformers.OmDetTurboConfig(
        backbone_config=backbone.to_dict(), text_config=text.to_dict(),
        image_size=64, encoder_in_channels=[16, 32, 64], encoder_hidden_dim=16, vision_features_channels=[16, 16, 16],
        encoder_attention_heads=2, encoder_dim_feedforward=16, decoder_hidden_dim=16, decoder_num_heads=2,
        decoder_num_layers=1, decoder_dim_feedforward=16, num_queries=12, class_embed_dim=24,
        apply_layernorm_after_vision_backbone=False, text_projection_in_dim=24, text_projection_out_dim=24,
        task_encoder_hidden_dim=16,
    )  # fmt: skip
    transformers.OmDetTurboForObjectDetection(config).save_pretrained(folder)
    images = transformers.DetrImageProcessor(size={"height": 64, "width": 64}, do_pad=False)
    transformers.OmDetTurboProcessor(images, clip_tokenizer()).save_pretrained(folder)


LOAD: dict[str, Callable[..., ClassListGrounder]] = {
    "owlv2": load_owlv2, "owlvit": load_owlv2, "omdet-turbo": load_omdet_turbo,
}  # fmt: skip


@pytest.fixture(scope="module", params=LOAD)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(kind)
    torch.manual_seed(0)
    if kind == "omdet-turbo":
        save_omdet_turbo(path)
    else:
        save_owl(path, "Owlv2" if kind == "owlv2" else "OwlViT")
    return path


def test_agrees_with_the_library_s_own_post_processing(folder: Path, kind: str) -> None:
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    inputs = processor(text=[["ship", "bridge"]], images=IMAGE, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    more = {"nms_threshold": 1.0} if kind == "omdet-turbo" else {}
    (expected,) = processor.post_process_grounded_object_detection(
        output, threshold=0.0, target_sizes=[(60, 80)], **more
    )
    order = expected["scores"].argsort(descending=True)
    both = [Phrase("ship", "ship"), Phrase("bridge", "bridge")]
    found = LOAD[kind](folder, box_threshold=0.0, overlap_threshold=1.0).find(IMAGE, both).boxes
    clipped = expected["boxes"].clamp(min=0).minimum(torch.tensor([80.0, 60.0, 80.0, 60.0]))
    seen = [i for i in order.tolist() if (clipped[i, 2:] - clipped[i, :2]).min() >= 1]
    assert len(seen) > 3
    np.testing.assert_allclose([one.score for one in found], expected["scores"][seen], rtol=1e-5)
    np.testing.assert_allclose([one.box for one in found], clipped[seen], atol=1e-3)
    assert [one.category for one in found] == [both[i].name for i in expected["labels"][seen].tolist()]


def test_phrases_of_one_name_and_any_words(folder: Path, kind: str) -> None:
    grounder = LOAD[kind](folder, box_threshold=0.0)
    assert {one.category for one in grounder.find(IMAGE, PHRASES).boxes} <= {"ship", "storagetank"}
    for expression in ("the largest ship left of the bridge", "all the zebras", "x" * 3000):
        result = grounder.ground(IMAGE, expression)
        assert (result.abstention is None) == bool(result.groundings)


def test_other_folders_are_named(folder: Path, kind: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds 'unknown', not an O"):
        LOAD[kind](tmp_path)
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "new_head": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"has unknown tensors \(1\): .*new_head"):
        LOAD[kind](tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(WeightsError, match="incomplete or damaged"):
        LOAD[kind](tmp_path)
