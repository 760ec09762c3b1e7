"""SAM 3's tracker: masks equal the library's own processor and model, and detector and tracker share a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from backend.pipeline.grounding.open_vocabulary import Phrase
from backend.pipeline.grounding.sam3 import load_sam3
from backend.pipeline.segmentation.hf_sam import HfSamSegmenter
from backend.pipeline.segmentation.sam3_tracker import load_sam3_tracker
from backend.pipeline.types import Prompts
from dataset_tools.errors import WeightsError
from tests.pipeline.segmentation import library_masks
from tests.pipeline.segmentation.library_masks import BOX, IMAGE, POINT, PROMPTS
from tests.sam3_tiny import write_sam3, write_sam3_detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> HfSamSegmenter:
    return load_sam3_tracker(folder, embedding_dtype="float32")


def library_mask(folder: Path, prompts: Prompts) -> tuple[npt.NDArray[np.bool_], float]:
    import transformers

    return library_masks.library_mask(folder, prompts, transformers.Sam3TrackerModel, transformers.Sam3TrackerProcessor)


@pytest.mark.parametrize("kind", PROMPTS)
def test_masks_equal_the_library_s(folder: Path, segmenter: HfSamSegmenter, kind: str) -> None:
    ours = segmenter.decode(segmenter.embed(IMAGE), PROMPTS[kind])
    mask, iou = library_mask(folder, PROMPTS[kind])
    assert np.array_equal(ours.mask, mask)
    assert ours.predicted_iou == pytest.approx(min(1.0, max(0.0, iou)), abs=1e-5)


def test_an_earlier_mask_is_a_prompt_too(folder: Path, segmenter: HfSamSegmenter) -> None:
    embedding = segmenter.embed(IMAGE)
    first = segmenter.decode(embedding, BOX)
    again = Prompts(POINT.points, POINT.point_labels, mask_logits=first.low_res_logits)
    mask, _ = library_mask(folder, again)
    assert np.array_equal(segmenter.decode(embedding, again).mask, mask)
    half = np.zeros(IMAGE.shape[:2], np.bool_)
    half[:, :40] = True
    segmenter.decode(embedding, Prompts(mask_logits=segmenter.mask_prompt(embedding, half)))


def test_detector_and_tracker_see_an_image_once(folder: Path, segmenter: HfSamSegmenter) -> None:
    shared: dict[Any, Any] = {}
    grounder = load_sam3(folder, shared=shared)
    tracker = load_sam3_tracker(folder, embedding_dtype="float32", shared=shared)
    (backbone,) = shared.values()
    grounder.find(IMAGE, [Phrase("ship", "ship")])
    embedding = tracker.embed(IMAGE)
    assert backbone.computed == 1
    assert np.array_equal(embedding.features, segmenter.embed(IMAGE).features)
    assert np.array_equal(tracker.decode(embedding, BOX).mask, segmenter.decode(segmenter.embed(IMAGE), BOX).mask)


def test_an_embedding_decodes_the_same_in_another_process_s_object(folder: Path) -> None:
    one, other = (load_sam3_tracker(folder, embedding_dtype="float16") for _ in range(2))
    embedding = one.embed(IMAGE)
    assert embedding.features.dtype == np.float16
    assert one.encoder_hash == other.encoder_hash
    assert np.array_equal(one.decode(embedding, BOX).mask, other.decode(embedding, BOX).mask)
    assert load_sam3_tracker(folder, autocast=True).encoder_hash != one.encoder_hash


def test_a_folder_without_a_tracker_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds 'sam3', not a SAM 3 with a tracker"):
        load_sam3_tracker(write_sam3_detector(tmp_path / "detector"))
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if "conv_s0" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks tensors \(2\): mask_decoder.conv_s0"):
        load_sam3_tracker(tmp_path)
