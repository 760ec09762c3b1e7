"""OWLv2's adapter against the library's own post-processing, on a tiny random model saved to disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from backend.pipeline.grounding.open_vocabulary import Phrase
from backend.pipeline.grounding.owlv2 import load_owlv2
from dataset_tools.errors import WeightsError
from tests.sam3_tiny import clip_tokenizer

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
PHRASES = [Phrase("vessel", "ship"), Phrase("ship", "ship"), Phrase("storage tank", "storagetank")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("owlv2")
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": 96, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    torch.manual_seed(0)
    config = transformers.Owlv2Config(
        text_config=size | text, vision_config=size | {"image_size": 32, "patch_size": 8}, projection_dim=16
    )
    model = transformers.Owlv2ForObjectDetection(config)
    with torch.no_grad():  # so small a model's random heads are sure of everything
        for part in (model.class_head.logit_shift, model.class_head.logit_scale, model.box_head.dense2):
            part.weight.mul_(0.02)
            part.bias.zero_()
        model.box_head.dense2.bias.copy_(torch.tensor([0.0, 0.0, 2.0, 2.0]))
    model.save_pretrained(path)
    images = transformers.Owlv2ImageProcessor(size={"height": 32, "width": 32})
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 16
    transformers.Owlv2Processor(images, tokenizer).save_pretrained(path)
    return path


def test_agrees_with_the_library_s_own_post_processing(folder: Path) -> None:
    model = transformers.Owlv2ForObjectDetection.from_pretrained(folder).eval()
    processor = transformers.Owlv2Processor.from_pretrained(folder)
    inputs = processor(text=[["ship", "bridge"]], images=IMAGE, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    (expected,) = processor.post_process_grounded_object_detection(output, threshold=0.0, target_sizes=[(60, 80)])
    order = expected["scores"].argsort(descending=True)
    both = [Phrase("ship", "ship"), Phrase("bridge", "bridge")]
    found = load_owlv2(folder, box_threshold=0.0, overlap_threshold=1.0).find(IMAGE, both).boxes
    clipped = expected["boxes"].clamp(min=0).minimum(torch.tensor([80.0, 60.0, 80.0, 60.0]))
    seen = [i for i in order.tolist() if (clipped[i, 2:] - clipped[i, :2]).min() >= 1]
    assert len(seen) > 3
    np.testing.assert_allclose([one.score for one in found], expected["scores"][seen], rtol=1e-5)
    np.testing.assert_allclose([one.box for one in found], clipped[seen], atol=1e-3)
    assert [one.category for one in found] == [both[i].name for i in expected["labels"][seen].tolist()]


def test_phrases_of_one_name_and_any_words(folder: Path) -> None:
    grounder = load_owlv2(folder, box_threshold=0.0)
    assert {one.category for one in grounder.find(IMAGE, PHRASES).boxes} <= {"ship", "storagetank"}
    for expression in ("the largest ship left of the bridge", "all the zebras", "x" * 3000):
        result = grounder.ground(IMAGE, expression)
        assert (result.abstention is None) == bool(result.groundings)


def test_other_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not an OWLv2"):
        load_owlv2(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(WeightsError, match="incomplete or damaged"):
        load_owlv2(tmp_path)
