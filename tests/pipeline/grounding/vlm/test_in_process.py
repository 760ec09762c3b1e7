"""Language models of transformers in this process, tiny ones that always say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backend.pipeline.grounding.vlm import load_vlm
from dataset_tools.errors import UnavailableError, WeightsError
from dataset_tools.geometry import Box
from tests.vlm_tiny import write_vlm

IMAGE = np.random.default_rng(0).integers(0, 255, (112, 140, 3), dtype=np.uint8)
ANSWER = ['[{"bbox_2d":[28,', "14,", "84,", "56],", '"label":"ship"}]']


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vlm(tmp_path_factory.mktemp(kind), ANSWER, kind=kind)


def test_boxes_are_in_the_numbers_of_the_model_s_type(kind: str, folder: Path) -> None:
    calls: list[tuple[object, ...]] = []
    grounder = load_vlm(folder)
    grounder.count_calls(lambda *call: calls.append(call))
    (found,) = grounder.ground(IMAGE, "the ship").groundings
    expected = Box(28, 14, 84, 56) if kind == "qwen2_5_vl" else Box(3.92, 1.568, 11.76, 6.272)
    assert found.box == pytest.approx(expected, abs=1e-3)
    assert found.category == "ship"
    (call,) = calls
    assert call[0] == "answered"
    assert call[3] == len(ANSWER) + 1


def test_an_image_larger_than_the_model_takes_is_scaled_back(kind: str, folder: Path) -> None:
    if kind != "qwen2_5_vl":
        pytest.skip("its numbers do not depend on the size")
    large = np.zeros((1120, 1400, 3), np.uint8)
    (found,) = load_vlm(folder).ground(large, "the ship").groundings
    assert found.box.x0 / 1400 == pytest.approx(28 / 224)  # seen as 224 x 196 pixels


def test_random_words_and_cut_answers_are_no_boxes(folder: Path, tmp_path: Path) -> None:
    babble = write_vlm(tmp_path / "babble", ["a", "ship", "perhaps"])
    with pytest.raises(UnavailableError, match=r"no usable boxes in 2 attempt.*a ship perhaps"):
        load_vlm(babble, attempts=2).ground(IMAGE, "the ship")
    endless = load_vlm(folder, max_tokens=16)
    endless._chat._max_tokens = 2  # type: ignore[attr-defined]  # smaller than a config may say
    with pytest.raises(UnavailableError, match="max_tokens"):
        endless.ground(IMAGE, "the ship")


def test_folders_that_are_no_such_model_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no language model"):
        load_vlm(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "chat_template.jinja").unlink()
    with pytest.raises(WeightsError, match="no chat template"):
        load_vlm(broken)
    from safetensors.torch import load_file, save_file

    tensors = load_file(broken / "model.safetensors")
    name = next(name for name in tensors if "q_proj.weight" in name)
    del tensors[name]
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks tensors \(1\): .*q_proj"):
        load_vlm(broken)
