"""SAM 3's detector on tiny random models saved as the published checkpoint is, against the library's processor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.pipeline.grounding import ExemplarFinder
from backend.pipeline.grounding.open_vocabulary import Phrase
from backend.pipeline.grounding.sam3 import Sam3Grounder, load_sam3
from dataset_tools.errors import PromptError, WeightsError
from dataset_tools.geometry import Box
from tests.sam3_tiny import write_sam3, write_sam3_detector

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
EVERYTHING: dict[str, Any] = {"threshold": 0.0, "presence_threshold": 0.0, "overlap_threshold": 1.0}
SHIP = [Phrase("ship", "ship")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module", params=["sam3_video", "sam3", "sam3_lite_text"])
def any_folder(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "sam3_video":
        return folder
    return write_sam3_detector(tmp_path_factory.mktemp(request.param), lite=request.param == "sam3_lite_text")


def library_answer(folder: Path, threshold: float, **prompts: Any) -> dict[str, torch.Tensor]:
    """Boxes, scores and masks as the library's documentation shows how to get them."""
    import transformers

    lite = (folder / "config.json").read_text().find('"model_type": "sam3_lite_text"') > 0
    kind = transformers.Sam3LiteTextModel if lite else transformers.Sam3Model
    model = kind.from_pretrained(folder).eval()
    processor = transformers.Sam3Processor.from_pretrained(folder)
    inputs = processor(images=IMAGE, return_tensors="pt", **prompts)
    sizes = inputs.pop("original_sizes").tolist()
    with torch.inference_mode():
        output = model(**inputs)
    (found,) = processor.post_process_instance_segmentation(output, threshold=threshold, target_sizes=sizes)
    order = found["scores"].argsort(descending=True)
    return {name: value[order] for name, value in found.items()}


def test_boxes_scores_and_masks_are_the_library_s(any_folder: Path) -> None:
    expected = library_answer(any_folder, 0.0, text="ship")
    found = load_sam3(any_folder, **EVERYTHING).find(IMAGE, SHIP)
    assert len(found.boxes) == len(expected["scores"]) > 3
    np.testing.assert_allclose([one.score for one in found.boxes], expected["scores"], rtol=1e-5)
    corners = expected["boxes"].clamp(min=0).minimum(torch.tensor([80.0, 60.0, 80.0, 60.0]))
    np.testing.assert_allclose([one.box for one in found.boxes], corners, atol=1e-3)
    for one, outline, mask in zip(found.boxes, found.outlines, expected["masks"], strict=True):
        drawn = outline()
        # Mask logits are kept in half precision.
        assert (drawn.mask != mask.bool().numpy()).mean() < 0.002
        assert 0 <= drawn.stability <= 1
        assert drawn.mask.any() == (drawn.predicted_iou > 0.5)
        assert one.area == pytest.approx(drawn.mask.sum(), rel=0.5, abs=100)


def test_examples_are_the_library_s_box_prompts(folder: Path) -> None:
    positive, negative = Box(10, 10, 30, 30), Box(40, 20, 60, 50)
    boxes = [[list(positive), list(negative)]]
    expected = library_answer(folder, 0.0, input_boxes=boxes, input_boxes_labels=[[1, 0]])
    grounder = load_sam3(folder, **EVERYTHING)
    assert isinstance(grounder, ExemplarFinder)
    found = grounder.find_like(IMAGE, [positive], [negative])
    np.testing.assert_allclose([one.score for one in found], expected["scores"], rtol=1e-5)
    named = grounder.find_like(IMAGE, [positive], [negative], noun="ship")
    with_words = library_answer(folder, 0.0, text="ship", input_boxes=boxes, input_boxes_labels=[[1, 0]])
    np.testing.assert_allclose([one.score for one in named], with_words["scores"], rtol=1e-5)
    assert [one.score for one in grounder.find_like(IMAGE, [positive])] != [one.score for one in found]
    outline = found[0].outline
    assert outline is not None
    assert outline().mask.shape == (60, 80)
    for bad in ([], [Box(100, 100, 120, 120)]):
        with pytest.raises(PromptError):
            grounder.find_like(IMAGE, bad)


def test_an_image_is_seen_once_and_what_is_kept_is_bounded(folder: Path) -> None:
    grounder = load_sam3(folder, **EVERYTHING)
    backbone = grounder._model.vision_encoder.backbone
    first = grounder.find(IMAGE, [*SHIP, Phrase("bridge", "bridge")])
    again = grounder.find(IMAGE, [*SHIP, Phrase("bridge", "bridge")])
    grounder.find_like(IMAGE, [Box(10, 10, 30, 30)])
    assert [one.box for one in first.boxes] == [one.box for one in again.boxes]
    assert backbone.computed == 1
    for seed in range(4):
        grounder.find(np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8), SHIP)
    assert backbone.computed == 5 - 1  # seed 0 is IMAGE
    one_image = 16 * 16 * 4
    small = load_sam3(folder, **EVERYTHING, feature_memory=2 * one_image)
    for seed in range(4):
        small.find(np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8), SHIP)
    assert small._model.vision_encoder.backbone.kept_bytes == 2 * one_image


def test_half_precision_of_the_backbone_changes_little(folder: Path) -> None:
    exact, half = (load_sam3(folder, **EVERYTHING, autocast=on).find(IMAGE, SHIP) for on in (False, True))
    assert exact.boxes[0].score != half.boxes[0].score
    assert exact.boxes[0].score == pytest.approx(half.boxes[0].score, abs=0.05)


def test_a_checkpoint_with_missing_or_renamed_tensors_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "text_encoder" in name and "q_proj.weight" in name)
    renamed = {key.replace("text_encoder.", "language_backbone."): value for key, value in tensors.items()}
    save_file(
        {k: v for k, v in tensors.items() if k != name}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(WeightsError, match=r"lacks tensors \(1\): text_encoder.*would answer at random"):
        load_sam3(tmp_path)
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks tensors \(21\): text_encoder"):
        load_sam3(tmp_path)
    extra = tensors | {"detector_model.new_head.weight": torch.zeros(2)}
    save_file(extra, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"has unknown tensors \(1\): .*new_head"):
        load_sam3(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match="holds 'bert', not a SAM 3"):
        load_sam3(tmp_path)


class DrawnSam3(torch.nn.Module):
    """Stands in for a trained network: sees bright spots in what it is given, whatever the words, unless they are
    words of ``absent``.
    """

    def __init__(self, absent: int = -1) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.absent = absent

    def get_vision_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(pooler_output=input_ids, last_hidden_state=input_ids)

    def forward(self, vision_embeds: torch.Tensor, text_embeds: Any, attention_mask: torch.Tensor) -> SimpleNamespace:
        import cv2

        bright = (vision_embeds[0].mean(dim=0) > 0.5).numpy().astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(bright)
        side = bright.shape[0]
        boxes = [[x / side, y / side, (x + w) / side, (y + h) / side] for x, y, w, h, _ in stats[1:].tolist()]
        masks = np.stack([np.where(labels == i, 8.0, -8.0) for i in range(1, count)] or [np.zeros((side, side))])
        there = 4.0 if int(text_embeds.pooler_output[0, 1]) != self.absent else -4.0
        return SimpleNamespace(
            presence_logits=torch.full((1, 1), there),
            pred_logits=torch.full((1, len(boxes)), 3.0),
            pred_boxes=torch.tensor(boxes).reshape(1, -1, 4),
            pred_masks=torch.from_numpy(masks)[None, : max(len(boxes), 1)],
        )


def drawn(folder: Path, **options: Any) -> Sam3Grounder:
    import transformers

    processor = transformers.Sam3Processor.from_pretrained(folder)
    absent = processor.tokenizer("zebra")["input_ids"][1]
    return Sam3Grounder(DrawnSam3(absent), processor, **options)


def scene(width: int, height: int, *spots: Box) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = np.zeros((height, width, 3), np.uint8)
    for spot in spots:
        image[int(spot.y0) : int(spot.y1), int(spot.x0) : int(spot.x1)] = 255
    return image


def test_relations_pick_and_the_mask_comes_along(folder: Path) -> None:
    image = scene(56, 56, Box(4, 4, 12, 12), Box(30, 4, 50, 24), Box(4, 40, 10, 46))
    (found,) = drawn(folder).ground(image, "the largest ship").groundings
    assert found.box == pytest.approx(Box(30, 4, 50, 24))
    assert found.category == "ship"
    assert found.score == pytest.approx(torch.tensor([3.0, 4.0]).sigmoid().prod().item())
    assert found.outline is not None
    assert found.outline().mask.sum() == 400
    assert len(drawn(folder).ground(image, "all the ships").groundings) == 3
    (lowest,) = drawn(folder).ground(image, "the ship at the bottom").groundings
    assert lowest.box.y0 == pytest.approx(40)


def test_a_low_presence_is_an_abstention(folder: Path) -> None:
    image = scene(56, 56, Box(4, 4, 12, 12))
    result = drawn(folder, threshold=0.001).ground(image, "the zebra")
    assert result.abstention is not None
    assert result.abstention.code == "absent"
    assert "presence 0.02" in result.abstention.message
    assert len(drawn(folder, threshold=0.001, presence_threshold=0.0).ground(image, "the zebra").groundings) == 1


def test_large_scenes_are_read_in_tiles_too_and_every_object_is_found_once(folder: Path) -> None:
    spots = [Box(50, 20, 58, 28), Box(10, 100, 16, 106), Box(180, 60, 188, 68), Box(60, 80, 150, 110)]
    image = scene(200, 120, *spots)
    reading = drawn(folder, largest_whole=100, tile_overlap=16)
    result = reading.ground(image, "all the ships")
    found = sorted(tuple(round(value) for value in one.box) for one in result.groundings)
    assert len(found) == len(spots)
    for box, spot in zip(found, sorted(spots), strict=True):
        np.testing.assert_allclose(box, spot, atol=4)
    for one in result.groundings:
        assert one.outline is not None
        mask = one.outline().mask
        assert mask.shape == (120, 200)
        assert Box.of_mask(mask).iou(one.box) > 0.6
