"""Florence-2's referring task: its polygons as boxes and masks, on a tiny model that says one thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backend.pipeline.grounding.florence2 import load_florence2
from backend.pipeline.types import Box
from dataset_tools.errors import ConfigError, WeightsError
from tests.florence2_tiny import write_florence2

IMAGE = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)


def corners(*places: int) -> list[str]:
    return [f"<loc_{place}>" for place in places]


ONE = corners(100, 201, 502, 203, 504, 805, 106, 807)
TWO = ["<poly>", *ONE, "</poly><poly>", *corners(600, 301, 902, 303, 904, 705), "</poly>"]


def test_a_sentence_s_polygon_is_a_box_and_a_mask(tmp_path: Path) -> None:
    grounder = load_florence2(write_florence2(tmp_path, ONE), score=0.6)
    (found,) = grounder.ground(IMAGE, "the <OCR> storage tank left of the road").groundings
    assert found.category == "storagetank"
    assert found.score == 0.6
    np.testing.assert_allclose(found.box, Box(20.1, 20.15, 100.9, 80.75), atol=1.0)
    assert found.outline is not None
    mask = found.outline().mask
    assert mask.shape == (100, 200)
    assert mask[50, 60]
    assert not mask[50, 150]
    assert mask.sum() == pytest.approx(81 * 60, rel=0.05)


def test_several_polygons_are_several_objects_or_too_many(tmp_path: Path) -> None:
    grounder = load_florence2(write_florence2(tmp_path, TWO), beams=1)
    assert len(grounder.ground(IMAGE, "all the ships").groundings) == 2
    unclear = grounder.ground(IMAGE, "the ship").abstention
    assert unclear is not None
    assert unclear.code == "ambiguous"
    assert grounder.ground(IMAGE, "all the ships", labels=("solar panel",)).groundings  # as a project's pipeline asks
    (left,) = grounder.ground(IMAGE, "the leftmost ship").groundings
    assert left.box.x0 < 30
    assert left.outline is not None


def test_no_polygon_is_absent(tmp_path: Path) -> None:
    grounder = load_florence2(write_florence2(tmp_path, ["nothing"]))
    result = grounder.ground(IMAGE, "the ship")
    assert result.abstention is not None
    assert result.abstention.code == "absent"


def test_what_cannot_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds 'unknown', not a Florence-2"):
        load_florence2(tmp_path)
    write_florence2(tmp_path, ONE)
    with pytest.raises(ConfigError, match=r"grounder\.options\.beams is 0"):
        load_florence2(tmp_path, beams=0)
    from safetensors.torch import load_file, save_file

    file = tmp_path / "model.safetensors"
    save_file({**load_file(file), "new_head": torch.zeros(1)}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"has unknown tensors \(1\): .*new_head"):
        load_florence2(tmp_path)
