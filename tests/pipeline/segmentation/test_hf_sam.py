"""SAM models of transformers: masks equal the library's own processor and model, on tiny random weights."""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch

from backend.pipeline.segmentation.hf_sam import HfSamSegmenter, load_hf_sam
from backend.pipeline.types import Box, Image, Prompts
from dataset_tools.errors import ImageError, PromptError, WeightsError
from tests.hf_sam_tiny import save_sam, save_sam2

IMAGE: Image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
POINT = Prompts(np.array([[30, 20]], np.float32), np.ones(1, np.int64))
POINTS = Prompts(np.array([[30, 20], [60, 40]], np.float32), np.array([1, 0]))
BOX = Prompts(box=Box(10, 5, 60, 40))
BOTH = Prompts(np.array([[30, 20]], np.float32), np.ones(1, np.int64), Box(10, 5, 60, 40))


@pytest.fixture(scope="module", params=["sam", "sam_hq", "sam2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    if request.param == "sam2":
        save_sam2(path)
    else:
        save_sam(path, high_quality=request.param == "sam_hq")
    return path


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> HfSamSegmenter:
    return load_hf_sam(folder, embedding_dtype="float32")


def library_masks(folder: Path, prompts: Prompts, mask_logits: bool = False) -> tuple[np.ndarray[Any, Any], Any]:
    """Mask and IoU as the library's documentation shows how to get them."""
    from transformers import AutoModelForMaskGeneration, AutoProcessor

    model = AutoModelForMaskGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    given: dict[str, Any] = {}
    if len(prompts.points):
        given["input_points"] = [[prompts.points.tolist()]]
        given["input_labels"] = [[prompts.point_labels.tolist()]]
    if prompts.box is not None:
        given["input_boxes"] = [[list(prompts.box)]]
    inputs = processor(images=IMAGE, return_tensors="pt", **given)
    sizes = [inputs["original_sizes"]]
    if "reshaped_input_sizes" in inputs:
        sizes.append(inputs.pop("reshaped_input_sizes"))
    inputs.pop("original_sizes")
    if len(prompts.points) and inputs["input_points"].ndim == 3:
        inputs["input_points"] = inputs["input_points"][None]
    inputs = {key: value.float() if value.is_floating_point() else value for key, value in inputs.items()}
    if prompts.mask_logits is not None:
        inputs["input_masks"] = torch.from_numpy(prompts.mask_logits)[None, None]
    lone = len(prompts.points) == 1 and prompts.box is None and prompts.mask_logits is None
    with torch.inference_mode():
        outputs = model(**inputs, multimask_output=lone)
    best = int(outputs.iou_scores[0, 0].argmax())
    masks = processor.post_process_masks(outputs.pred_masks, *sizes)
    return np.asarray(masks[0][0, best]), float(outputs.iou_scores[0, 0, best])


@pytest.mark.parametrize("prompts", [POINT, POINTS, BOX, BOTH], ids=["point", "points", "box", "both"])
def test_masks_equal_the_library_s(folder: Path, segmenter: HfSamSegmenter, prompts: Prompts) -> None:
    ours = segmenter.decode(segmenter.embed(IMAGE), prompts)
    mask, iou = library_masks(folder, prompts)
    assert ours.mask.shape == IMAGE.shape[:2]
    assert np.array_equal(ours.mask, mask)
    assert ours.predicted_iou == pytest.approx(min(1.0, max(0.0, iou)), abs=1e-5)


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
    mask, _ = library_masks(folder, again)
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
    with pytest.raises(WeightsError, match="transformers bert"):
        load_hf_sam(tmp_path)
