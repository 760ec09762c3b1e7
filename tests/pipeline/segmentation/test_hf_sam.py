"""SAM models of transformers: masks equal the library's own, on tiny random weights, and so do OpenVINO's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils.import_utils import BACKENDS_MAPPING

from backend.pipeline.segmentation.hf_sam import HfSamSegmenter, load_hf_sam
from backend.pipeline.types import Box, Prompts
from dataset_tools.errors import ConfigError, ImageError, PromptError, WeightsError
from tests.hf_sam_tiny import save_edgetam, save_sam, save_sam2
from tests.pipeline.segmentation.library_masks import BOX, IMAGE, POINT, PROMPTS, library_mask

SAVE: dict[str, Callable[[Path], None]] = {
    "sam": lambda path: save_sam(path, high_quality=False),
    "sam_hq": lambda path: save_sam(path, high_quality=True),
    "sam2": save_sam2,
    "edgetam": save_edgetam,
}


@pytest.fixture(scope="module", params=SAVE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "edgetam":
        pytest.importorskip("timm", reason='EdgeTAM needs timm: pip install "pslg-sam[timm]"')
    path = tmp_path_factory.mktemp(request.param)
    SAVE[request.param](path)
    return path


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> HfSamSegmenter:
    return load_hf_sam(folder, embedding_dtype="float32")


@pytest.fixture(scope="module")
def with_openvino(folder: Path) -> HfSamSegmenter:
    if json.loads((folder / "config.json").read_text())["model_type"] == "sam":
        pytest.skip("encoder and decoder are SAM-HQ's")
    pytest.importorskip("openvino", reason='OpenVINO is not installed: pip install "pslg-sam[openvino]"')
    return load_hf_sam(folder, embedding_dtype="float32", engine="openvino")


@pytest.mark.parametrize("kind", PROMPTS)
def test_masks_equal_the_library_s(folder: Path, segmenter: HfSamSegmenter, kind: str) -> None:
    ours = segmenter.decode(segmenter.embed(IMAGE), PROMPTS[kind])
    mask, iou = library_mask(folder, PROMPTS[kind])
    assert ours.mask.shape == IMAGE.shape[:2]
    assert np.array_equal(ours.mask, mask)
    assert ours.predicted_iou == pytest.approx(min(1.0, max(0.0, iou)), abs=1e-5)


@pytest.mark.parametrize("kind", [*PROMPTS, "mask"])
def test_openvino_gives_torch_s_masks(segmenter: HfSamSegmenter, with_openvino: HfSamSegmenter, kind: str) -> None:
    """Features and logits within 1e-5 of the largest one, and with them the masks."""
    embeddings = [one.embed(IMAGE) for one in (segmenter, with_openvino)]
    assert embeddings[0].key == embeddings[1].key
    largest = np.abs(embeddings[0].features).max()
    assert np.allclose(embeddings[0].features, embeddings[1].features, rtol=0, atol=1e-5 * largest)
    first = segmenter.decode(embeddings[0], BOX)
    prompts = PROMPTS.get(kind, Prompts(mask_logits=first.low_res_logits))
    for embedding in embeddings:  # the store may hold an embedding that the other engine made
        theirs, ours = (one.decode(embedding, prompts) for one in (segmenter, with_openvino))
        largest = np.abs(theirs.low_res_logits).max()
        assert np.allclose(theirs.low_res_logits, ours.low_res_logits, rtol=0, atol=1e-4 * largest)
        assert (theirs.mask != ours.mask).mean() < 0.002
        assert ours.predicted_iou == pytest.approx(theirs.predicted_iou, abs=1e-4)
        assert ours.stability == pytest.approx(theirs.stability, abs=0.01)


def test_half_precision_is_another_model(folder: Path, segmenter: HfSamSegmenter) -> None:
    half = load_hf_sam(folder, embedding_dtype="float32", autocast=True)
    assert half.encoder_hash != segmenter.encoder_hash
    ours, exact = half.embed(IMAGE).features, segmenter.embed(IMAGE).features
    assert not np.array_equal(ours, exact)
    assert np.abs(ours - exact).max() < 0.1 * np.abs(exact).max()
    with pytest.raises(ConfigError, match="autocast must be false, true"):
        load_hf_sam(folder, autocast="int8")  # type: ignore[arg-type]


def test_an_image_that_a_gpu_has_no_memory_for_is_embedded_on_the_cpu(folder: Path, segmenter: HfSamSegmenter) -> None:
    scarce = load_hf_sam(folder, embedding_dtype="float32")
    model = scarce._model

    def get_image_embeddings(self: Any, pixels: torch.Tensor) -> Any:
        if self is model:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return type(self).get_image_embeddings(self, pixels)

    model.get_image_embeddings = MethodType(get_image_embeddings, model)
    counted: list[int] = []
    scarce.memory_fallback.count = lambda: counted.append(1)
    assert np.array_equal(scarce.embed(IMAGE).features, segmenter.embed(IMAGE).features)
    assert counted == [1]


def test_an_earlier_mask_is_a_prompt_too(folder: Path, segmenter: HfSamSegmenter) -> None:
    embedding = segmenter.embed(IMAGE)
    first = segmenter.decode(embedding, BOX)
    again = Prompts(POINT.points, POINT.point_labels, mask_logits=first.low_res_logits)
    mask, _ = library_mask(folder, again)
    assert np.array_equal(segmenter.decode(embedding, again).mask, mask)


def test_a_mask_becomes_logits_of_the_model_s_size(segmenter: HfSamSegmenter) -> None:
    embedding = segmenter.embed(IMAGE)
    half = np.zeros(IMAGE.shape[:2], np.bool_)
    half[:, :40] = True
    logits = segmenter.mask_prompt(embedding, half)
    rows, columns = logits.shape
    assert logits[1, 1] > 0 > logits[1, int(columns * 0.75)]
    segmenter.decode(embedding, Prompts(mask_logits=logits))
    with pytest.raises(PromptError, match="shape"):
        segmenter.mask_prompt(embedding, half[1:])
    with pytest.raises(PromptError, match="mask logits"):
        segmenter.decode(embedding, Prompts(mask_logits=logits[1:]))
    assert rows == columns


def test_half_precision_embeddings_decode_the_same_from_another_object(folder: Path) -> None:
    one, other = (load_hf_sam(folder, embedding_dtype="float16") for _ in range(2))
    embedding = one.embed(IMAGE)
    assert embedding.features.dtype == np.float16
    assert one.encoder_hash == other.encoder_hash
    assert np.array_equal(one.decode(embedding, BOX).mask, other.decode(embedding, BOX).mask)


def test_prompts_and_windows_that_cannot_work_are_refused(segmenter: HfSamSegmenter) -> None:
    embedding = segmenter.embed(IMAGE)
    with pytest.raises(PromptError, match="a prompt is needed"):
        segmenter.decode(embedding, Prompts())
    with pytest.raises(PromptError, match="inside the image"):
        segmenter.decode(embedding, Prompts(np.array([[90, 20]], np.float32), np.ones(1, np.int64)))
    with pytest.raises(PromptError, match="beside the image"):
        segmenter.decode(embedding, Prompts(box=Box(100, 100, 120, 120)))
    with pytest.raises(ImageError, match="whole images"):
        segmenter.embed(IMAGE, Box(0, 0, 10, 10))


def test_other_folders_are_recognised(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="'unknown'"):
        load_hf_sam(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match="holds 'bert', not a SAM of transformers"):
        load_hf_sam(tmp_path)


def test_tensors_that_are_missing_or_left_over_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_sam2(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "mask_decoder.new_head.weight": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"has unknown tensors \(1\): mask_decoder.new_head.weight"):
        load_hf_sam(tmp_path)
    save_file({name: value for name, value in tensors.items() if "iou_token" not in name}, file)
    with pytest.raises(WeightsError, match=r"mask_decoder\.iou_token\.weight"):
        load_hf_sam(tmp_path)


def test_a_package_that_a_model_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm", reason="writes the model that needs it")
    save_edgetam(tmp_path)
    monkeypatch.setitem(BACKENDS_MAPPING, "timm", (lambda: False, "{0} requires the timm library"))
    with pytest.raises(ConfigError, match=r'timm.*pip install "pslg-sam\[timm\]"'):
        load_hf_sam(tmp_path)
