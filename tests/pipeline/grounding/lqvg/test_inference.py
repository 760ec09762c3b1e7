"""LQVG as a grounder: words and pixels in, boxes in the image out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from backend.pipeline.grounding import Grounder
from backend.pipeline.grounding.lqvg import LqvgGrounder, load_lqvg, load_lqvg_grounder
from backend.pipeline.grounding.lqvg.inference import Tokenizer, load_tokenizer
from backend.pipeline.grounding.lqvg.letterbox import letterbox, normalize
from backend.pipeline.types import Box
from dataset_tools.errors import PromptError, WeightsError
from tests.lqvg_tiny import write_checkpoint, write_tokenizer


class FixedProposals(nn.Module):
    """Answers every image with the same boxes (pixels of the square) and scores."""

    architecture = SimpleNamespace(text_positions=64, vocabulary=400)

    def __init__(self, boxes: list[Box], scores: list[float], size: int) -> None:
        super().__init__()
        corners = torch.tensor(boxes, dtype=torch.float32) / size
        self.boxes = torch.cat(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), dim=1)
        self.logits = torch.tensor(scores).logit()

    def forward(self, images: Tensor, padding: Tensor, token_ids: Tensor, attention: Tensor) -> dict[str, Any]:
        assert not padding.any()
        return {"pred_logits": self.logits.view(1, 1, -1, 1), "pred_boxes": self.boxes.view(1, 1, -1, 4)}


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


tokens = Tokenizer(lambda text: [0, *range(5, 5 + len(text.split())), 2], vocabulary=400)


@pytest.fixture(scope="module")
def grounder(tmp_path_factory: pytest.TempPathFactory) -> Grounder:
    folder = tmp_path_factory.mktemp("lqvg")
    return load_lqvg_grounder(
        write_checkpoint(folder / "lqvg.pth"),
        tokenizer=write_tokenizer(folder / "roberta"),
        image_size=96,
        device="cpu",
    )


def test_grounds_from_files_in_the_published_formats(grounder: Grounder) -> None:
    image = image_of(90, 90)
    result = grounder.ground(image, "The  large white AIRPLANE on the left")
    assert result.abstention is None
    assert grounder.known_categories is None
    (found,) = result.groundings
    assert found.category == "airplane"
    assert 0 <= found.box.x0 < found.box.x1 <= 90
    assert 0 <= found.box.y0 < found.box.y1 <= 90
    assert result.candidates[0] == found
    scores = [candidate.score for candidate in result.candidates]
    assert scores == sorted(scores, reverse=True)
    assert 2 <= len(scores) <= 10
    # lower case and single spaces, as the network was trained
    assert grounder.ground(image, "the large white airplane on the left") == result
    assert grounder.ground(image, "the tennis court").groundings[0].box != found.box


def test_result_equals_the_steps_of_the_original(tmp_path: Path) -> None:
    checkpoint, folder = write_checkpoint(tmp_path / "lqvg.pth", seed=3), write_tokenizer(tmp_path / "roberta")
    network, image = load_lqvg(checkpoint), image_of(100, 70, seed=1)
    square, fit = letterbox(image, 96)
    ids = torch.tensor([load_tokenizer(folder)("the ship on the left")])
    with torch.no_grad():
        outputs = network(
            torch.from_numpy(normalize(square))[None], torch.zeros(1, 96, 96, dtype=torch.bool), ids, ids * 0 + 1
        )
    scores = outputs["pred_logits"].flatten().sigmoid()
    cx, cy, w, h = (outputs["pred_boxes"].view(-1, 4)[scores.argmax()] * 96).tolist()
    ratio, dw = 96 / 100, (96 - 67) / 2  # 70 * 0.96 rounds to 67
    expected = [(cx - w / 2 - dw) / ratio, (cy - h / 2) / ratio, (cx + w / 2 - dw) / ratio, (cy + h / 2) / ratio]
    expected = np.clip(expected, 0, [70, 100, 70, 100]).tolist()
    assert fit.left == dw

    grounder = load_lqvg_grounder(checkpoint, tokenizer=folder, image_size=96, device="cpu")
    (found,) = grounder.ground(image, "the ship on the left").groundings
    assert found.box == pytest.approx(expected, abs=1e-4)
    assert found.score == pytest.approx(scores.max().item(), abs=1e-6)


@settings(max_examples=60)
@given(st.integers(8, 300), st.integers(8, 300), st.data())
def test_boxes_come_back_where_they_were(height: int, width: int, data: st.DataObject) -> None:
    x0, x1 = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(data.draw(st.lists(st.integers(0, height), min_size=2, max_size=2, unique=True)))
    box = Box(float(x0), float(y0), float(x1), float(y1))
    image = image_of(height, width)
    _, fit = letterbox(image, 128)
    fitted = Box(*(side * fit.ratio + shift for side, shift in zip(box, (fit.left, fit.top) * 2, strict=True)))
    network = FixedProposals([fitted, Box(0, 0, 5, 5)], [0.8, 0.3], 128)
    (found,) = LqvgGrounder(network, tokens, image_size=128).ground(image, "the ship").groundings
    assert found.box == pytest.approx(box, abs=1e-3)
    assert found.score == pytest.approx(0.8, abs=1e-6)


def test_boxes_are_clipped_to_the_image_and_those_outside_dropped() -> None:
    # 100 x 50 pixels in a square of 100: rows 25 to 75 of the square are image
    boxes = [Box(-10, 20, 50, 60), Box(10, 0, 20, 20), Box(40, 40, 60, 50)]
    result = LqvgGrounder(FixedProposals(boxes, [0.9, 0.8, 0.4], 100), tokens, image_size=100).ground(
        image_of(50, 100), "the ship"
    )
    assert [candidate.box for candidate in result.candidates] == [
        pytest.approx(Box(0, 0, 50, 35), abs=1e-3),
        pytest.approx(Box(40, 15, 60, 25), abs=1e-3),
    ]


def test_abstains_without_words_below_the_threshold_and_outside_the_image() -> None:
    network = FixedProposals([Box(10, 0, 20, 20), Box(40, 40, 60, 50)], [0.3, 0.2], 100)
    image = image_of(50, 100)
    for expression in ("", "  ", "?!"):
        result = LqvgGrounder(network, tokens, image_size=100).ground(image, expression)
        assert result.abstention is not None
        assert result.abstention.code == "empty-expression"
        assert result.groundings == ()
    outside = LqvgGrounder(network, tokens, image_size=100).ground(image, "the ship")
    assert outside.abstention is not None
    assert outside.abstention.code == "absent"
    assert "outside the image" in outside.abstention.message
    inside = FixedProposals([Box(40, 40, 60, 50)], [0.3], 100)
    weak = LqvgGrounder(inside, tokens, image_size=100, score_threshold=0.5).ground(image, "the ship")
    assert weak.abstention is not None
    assert weak.abstention.code == "absent"
    assert "'the ship': best score 0.30, at least 0.50" in weak.abstention.message
    assert len(weak.candidates) == 1
    assert LqvgGrounder(inside, tokens, image_size=100, score_threshold=0.25).ground(image, "the ship").groundings


def test_a_text_longer_than_the_position_table_is_refused(grounder: Grounder) -> None:
    with pytest.raises(PromptError, match=r"has \d+ word pieces, LQVG reads at most 62"):
        grounder.ground(image_of(30, 30), "the ship " * 40)


def test_tokenizer_files_are_named_when_missing_or_wrong(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"needs vocab\.json and merges\.txt in .*place them there by hand"):
        load_tokenizer(tmp_path)
    write_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0, "<s>": 1, "<pad>": 2, "</s>": 3, "<unk>": 4, "<mask>": 5}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(WeightsError, match=r"must be 0, 1, 2 and are \(1, 2, 3\)"):
        load_tokenizer(tmp_path)
    with pytest.raises(WeightsError, match="has 401 entries, the network was trained with 400"):
        LqvgGrounder(FixedProposals([Box(0, 0, 9, 9)], [0.3], 100), Tokenizer(tokens.encode, 401))
    (tmp_path / "vocab.json").write_text("not json")
    with pytest.raises(WeightsError, match="no usable byte-level BPE vocabulary"):
        load_tokenizer(tmp_path)


def test_tokenizer_is_roberta_s_byte_level_bpe(tmp_path: Path) -> None:
    # hand-made: bytes of "the ship" with the merges th, the and Ġs; no space is put before the first word
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"thesip", "Ġ", "th", "the", "Ġs"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocabulary)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e\nĠ s\n", encoding="utf-8")
    pieces = [vocabulary[i] for i in load_tokenizer(tmp_path)("the ship")]
    assert pieces == ["<s>", "the", "Ġs", "h", "i", "p", "</s>"]


def test_a_label_of_the_project_is_the_category_of_what_is_found() -> None:
    network = FixedProposals([Box(10, 40, 20, 50)], [0.9], 100)
    grounder = LqvgGrounder(network, tokens, image_size=100)
    image = image_of(100, 100)
    assert grounder.ground(image, "the Solar_Panel on the left").groundings[0].category is None
    (found,) = grounder.ground(image, "the Solar_Panel on the left", labels={"solar panel"}).groundings
    assert found.category == "solar panel"
