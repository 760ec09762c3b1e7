"""Grounding DINO's adapter, on a tiny randomly initialised model of transformers saved to disk; no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import (
    AutoModelForZeroShotObjectDetection,
    CLIPVisionConfig,
    CLIPVisionModel,
    GroundingDinoProcessor,
)

from backend.pipeline.grounding.grounding_dino import GroundingDinoGrounder, load_grounding_dino
from backend.pipeline.grounding.open_vocabulary import Phrase, phrases_of
from dataset_tools.errors import WeightsError
from dataset_tools.expressions.parser import parse
from dataset_tools.geometry import Box
from tests.grounding_dino_tiny import write_grounding_dino, write_mm_grounding_dino


@pytest.fixture(scope="module", params=[write_grounding_dino, write_mm_grounding_dino])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    write: Callable[[Path], Path] = request.param
    return write(tmp_path_factory.mktemp("grounding-dino"))


@pytest.fixture(scope="module")
def grounder(folder: Path) -> GroundingDinoGrounder:
    return load_grounding_dino(folder, box_threshold=0.01, overlap_threshold=1.0)


@pytest.fixture(scope="module")
def image() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)


def test_agrees_with_the_library_s_own_post_processing(
    grounder: GroundingDinoGrounder, folder: Path, image: npt.NDArray[np.uint8]
) -> None:
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = GroundingDinoProcessor.from_pretrained(folder)
    inputs = processor(images=image, text="ship.", return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    output.logits = output.logits.clone()
    output.logits[..., [0, 2, 3]] = -torch.inf  # the library also scores [CLS], the full stop and [SEP]
    (expected,) = processor.post_process_grounded_object_detection(
        output, inputs["input_ids"], threshold=0.01, text_threshold=0.01, target_sizes=[(120, 160)]
    )
    found = grounder.detect(image, [Phrase("ship", "ship")])
    order = expected["scores"].argsort(descending=True)
    assert len(found) == len(order) > 0
    assert {item.category for item in found} == {"ship"}
    np.testing.assert_allclose([item.score for item in found], expected["scores"][order], rtol=1e-5)
    clipped = expected["boxes"][order].clamp(min=0).minimum(torch.tensor([160.0, 120.0, 160.0, 120.0]))
    np.testing.assert_allclose([item.box for item in found], clipped, atol=1e-3)


def test_boxes_lie_in_the_image_and_carry_the_phrases_names(
    grounder: GroundingDinoGrounder, image: npt.NDArray[np.uint8]
) -> None:
    phrases = [Phrase("vessel", "ship"), Phrase("ship", "ship"), Phrase("storage tank", "storagetank")]
    found = grounder.detect(image, phrases)
    assert {item.category for item in found} <= {"ship", "storagetank"}
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    for item in found:
        assert 0 <= item.box.x0 < item.box.x1 <= 160
        assert 0 <= item.box.y0 < item.box.y1 <= 120
    assert grounder.detect(image, phrases) == found


def test_the_box_threshold_counts(folder: Path, image: npt.NDArray[np.uint8]) -> None:
    phrases = [Phrase("ship", "ship")]
    everything = load_grounding_dino(folder, box_threshold=0.0, overlap_threshold=1.0).detect(image, phrases)
    middle = everything[len(everything) // 2].score
    some = load_grounding_dino(folder, box_threshold=middle, overlap_threshold=1.0).detect(image, phrases)
    assert some == [item for item in everything if item.score >= middle]
    assert 0 < len(some) < len(everything)


def test_grounds_any_words_without_error(grounder: GroundingDinoGrounder, image: npt.NDArray[np.uint8]) -> None:
    for expression in ("the largest ship left of the bridge", "all the zebras", "左边的飞机", "x" * 5000):
        result = grounder.ground(image, expression)
        assert (result.abstention is None) == bool(result.groundings)


def test_the_prompt_holds_nouns_only_each_once() -> None:
    query = parse("the two leftmost vessels near the pylon, left of the ship and the largest harbor")
    assert [p.words for p in phrases_of(query)] == ["vessels", "ship", "harbor"]
    (relation, *_) = query.relations
    assert relation.targets[0].noun == "pylon"


class DrawnDetector(torch.nn.Module):
    """Stands in for a trained network: sees the given objects (word, box in 0..1) and nothing else."""

    def __init__(self, processor: Any, objects: list[tuple[str, Box, float]]) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.processor = processor
        self.objects = objects

    def forward(self, input_ids: torch.Tensor, **others: torch.Tensor) -> SimpleNamespace:
        logits = torch.full((1, len(self.objects), 256), -torch.inf)
        boxes = torch.tensor(
            [[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2, b.x1 - b.x0, b.y1 - b.y0] for _, b, _ in self.objects]
        )
        for row, (word, _, score) in enumerate(self.objects):
            for token in self.processor.tokenizer(word, add_special_tokens=False)["input_ids"]:
                for column in (input_ids[0] == token).nonzero()[:, 0].tolist():
                    logits[0, row, column] = float(np.log(score / (1 - score)))
        return SimpleNamespace(logits=logits, pred_boxes=boxes[None])


SHIPS = [
    ("ship", Box(0.1, 0.1, 0.2, 0.2), 0.8),
    ("ship", Box(0.7, 0.1, 0.9, 0.3), 0.7),
    ("ship", Box(0.7, 0.1, 0.9, 0.31), 0.5),  # the same one again
    ("ship", Box(0.1, 0.7, 0.2, 0.8), 0.6),
]


@pytest.fixture
def harbor_scene(folder: Path) -> GroundingDinoGrounder:
    processor = GroundingDinoProcessor.from_pretrained(folder)
    others = [("pylon", Box(0.1, 0.85, 0.2, 0.95), 0.9), ("bridge", Box(0.4, 0.0, 0.5, 1.0), 0.1)]
    return GroundingDinoGrounder(DrawnDetector(processor, [*SHIPS, *others]), processor)


def test_the_weaker_of_two_boxes_on_one_object_is_dropped(folder: Path, image: npt.NDArray[np.uint8]) -> None:
    processor = GroundingDinoProcessor.from_pretrained(folder)
    model = DrawnDetector(processor, SHIPS)
    phrases = [Phrase("ship", "ship")]
    once = GroundingDinoGrounder(model, processor, overlap_threshold=0.7).detect(image, phrases)
    assert [round(item.score, 3) for item in once] == [0.8, 0.7, 0.6]
    assert len(GroundingDinoGrounder(model, processor, overlap_threshold=1.0).detect(image, phrases)) == 4


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("the leftmost ship at the top", [(16, 12, 32, 24)]),
        ("the largest vessel", [(112, 12, 144, 36)]),
        ("the ship nearest to the pylon", [(16, 84, 32, 96)]),
        ("the pylon", [(16, 102, 32, 114)]),
        ("all the ships", [(16, 12, 32, 24), (112, 12, 144, 36), (16, 84, 32, 96)]),
    ],
)
def test_relations_pick_among_what_the_detector_finds(
    harbor_scene: GroundingDinoGrounder,
    image: npt.NDArray[np.uint8],
    expression: str,
    expected: list[tuple[float, float, float, float]],
) -> None:
    result = harbor_scene.ground(image, expression)
    found = sorted(tuple(round(v) for v in g.box) for g in result.groundings)
    assert found == sorted(expected)
    assert {g.category for g in result.groundings} == ({"ship"} if "pylon" not in expression[:10] else {None})


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("the bridge", "absent"),
        ("the zebra", "absent"),
        ("the ship", "ambiguous"),
        ("the left one", "unknown-category"),
        ("  ", "empty-expression"),
    ],
)
def test_abstains(
    harbor_scene: GroundingDinoGrounder, image: npt.NDArray[np.uint8], expression: str, code: str
) -> None:
    result = harbor_scene.ground(image, expression)
    assert result.abstention is not None
    assert result.abstention.code == code
    assert result.groundings == ()
    if code == "ambiguous":
        assert len(result.abstention.candidates) > 1


def test_colors_are_looked_at(harbor_scene: GroundingDinoGrounder) -> None:
    image = np.full((120, 160, 3), (60, 90, 110), np.uint8)
    image[12:24, 16:32] = (200, 30, 30)
    image[12:36, 112:144] = 240
    image[84:96, 16:32] = 240
    (found,) = harbor_scene.ground(image, "the red ship").groundings
    assert found.box.x0 == pytest.approx(16)


def test_folders_that_are_no_grounding_dino_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(WeightsError, match="no folder with a Grounding DINO"):
        load_grounding_dino(tmp_path / "missing")
    with pytest.raises(WeightsError, match="no usable config"):
        load_grounding_dino(tmp_path)
    tiny = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    CLIPVisionModel(tiny).save_pretrained(tmp_path / "clip")
    with pytest.raises(WeightsError, match="clip_vision_model"):
        load_grounding_dino(tmp_path / "clip")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(WeightsError, match="incomplete or damaged"):
        load_grounding_dino(broken)


def test_missing_tensors_are_named(tmp_path: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.text_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks tensors \(1\): model\.text_projection\.weight"):
        load_grounding_dino(tmp_path)
