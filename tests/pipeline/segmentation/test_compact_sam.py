from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.pipeline.segmentation.compact_sam import build_compact_sam, load_compact_segmenter, set_img_size
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from backend.pipeline.types import Box, Prompts
from backend.training.run import save_weights
from dataset_tools.errors import WeightsError
from tests.pipeline.segmentation.small_sams import small_compact_sam

SHIPPED = Path(__file__).resolve().parents[3] / "backend" / "weights" / "compact_segmenter" / "model.safetensors"
DIMENSIONS = {"embed_dim": 32, "widths": [8, 8, 16, 16, 16], "depths": [1, 1, 1, 1], "mlp_dim": 32}


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.tuples(*[st.floats(0, 1) for _ in range(4)]),
)
def test_window_is_square_whole_and_holds_the_box(width: int, height: int, corners: tuple[float, ...]) -> None:
    x0, x1 = sorted((corners[0] * width, corners[1] * width))
    y0, y1 = sorted((corners[2] * height, corners[3] * height))
    window = window_for(Box(x0, y0, x1, y1), (height, width))
    assert window.width == window.height <= max(width, height)
    assert all(value == int(value) for value in window)
    assert window.x0 <= x0 + 1
    assert window.x1 >= x1 - 1
    assert window.y0 <= y0 + 1
    assert window.y1 >= y1 - 1
    assert window.clip(width, height).area > 0


def test_window_leaves_room_for_a_box_that_is_12_percent_off() -> None:
    true = Box(100, 100, 200, 180)
    loose = Box(112, 109.6, 188, 170.4)
    window = window_for(loose, (1000, 1000))
    assert window.x0 <= true.x0
    assert window.x1 >= true.x1


def test_shipped_size_stays_below_12_megabytes() -> None:
    assert sum(parameter.numel() for parameter in build_compact_sam().parameters()) * 2 < 12e6


def test_low_resolution_masks_have_half_the_input_side() -> None:
    sam = small_compact_sam(img_size=64)
    set_img_size(sam, 96)
    with torch.no_grad():
        features = sam.image_encoder(torch.zeros(1, 3, 96, 96))
        sparse, dense = sam.prompt_encoder(None, torch.tensor([[10.0, 10, 60, 60]]), None)
        masks, iou = sam.mask_decoder(features, sam.prompt_encoder.get_dense_pe(), sparse, dense, False)
    assert masks.shape == (1, 1, 48, 48)
    assert iou.shape == (1, 1)
    assert sam.prompt_encoder.mask_input_size == (48, 48)


def write_small(path: Path, **changes: str) -> None:
    metadata = {"architecture": "compact_sam", "img_size": "64", "model": json.dumps(DIMENSIONS)} | changes
    save_weights(path, small_compact_sam().state_dict(), torch.float16, metadata)


def test_saved_weights_load_with_their_dimensions(tmp_path: Path) -> None:
    write_small(tmp_path / "model.safetensors")
    segmenter = load_compact_segmenter(tmp_path / "model.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    box = Box(50, 40, 90, 70)
    window = segmenter.window_for(box, (120, 200))
    prediction = segmenter.decode(segmenter.embed(image, window), Prompts(box=box))
    assert window.contains(box.center)
    assert prediction.mask.shape == (120, 200)
    assert prediction.low_res_logits.shape == (32, 32)


def test_encoder_hash_follows_the_weights_file(tmp_path: Path) -> None:
    write_small(tmp_path / "a.safetensors")
    save_weights(
        tmp_path / "b.safetensors",
        small_compact_sam(seed=1).state_dict(),
        torch.float16,
        {"architecture": "compact_sam", "img_size": "64", "model": json.dumps(DIMENSIONS)},
    )
    hashes = {load_compact_segmenter(tmp_path / name).encoder_hash for name in ("a.safetensors", "b.safetensors")}
    assert len(hashes) == 2
    assert load_compact_segmenter(tmp_path / "a.safetensors").encoder_hash in hashes


def test_wrong_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read .*missing\.safetensors"):
        load_compact_segmenter(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(WeightsError, match="damaged"):
        load_compact_segmenter(tmp_path / "text.safetensors")
    write_small(tmp_path / "other.safetensors", architecture="compact_grounder")
    with pytest.raises(WeightsError, match="holds compact_grounder, not the compact segmenter"):
        load_compact_segmenter(tmp_path / "other.safetensors")
    write_small(tmp_path / "misfit.safetensors", model=json.dumps(DIMENSIONS | {"mlp_dim": 64}))
    with pytest.raises(WeightsError, match="do not fit"):
        load_compact_segmenter(tmp_path / "misfit.safetensors")


@pytest.mark.parametrize("window", [Box(0, 0, 40, 40), Box(-6, 10, 90, 106)])
def test_an_outline_by_two_looks_knows_no_up(window: Box) -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 80, 3), dtype=np.uint8)
    points = np.array([[12, 25], [30, 14]], np.float32)
    around = Box(8, 12, 33, 31)
    upright = Prompts(points, np.array([1, 0]), around)
    upside_down = Prompts(
        np.array([79, 99], np.float32) - points, upright.point_labels, Box(80 - 33, 100 - 31, 80 - 8, 100 - 12)
    )
    turned = Box(80 - window.x1, 100 - window.y1, 80 - window.x0, 100 - window.y0)
    careful = SamSegmenter(small_compact_sam(), window_rule=window_for, half_turn=True)
    other_way = np.ascontiguousarray(image[::-1, ::-1])
    one = careful.outline(image, careful.embed(image, window), upright)
    other = careful.outline(other_way, careful.embed(other_way, turned), upside_down)
    assert one.mask.any()
    assert np.allclose(one.low_res_logits, other.low_res_logits[::-1, ::-1], atol=1e-4)
    assert (one.mask != other.mask[::-1, ::-1]).mean() < 0.001
    assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-5)


def test_the_threshold_says_what_belongs_to_the_object(tmp_path: Path) -> None:
    write_small(tmp_path / "model.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    prompts, whole = Prompts(box=Box(20, 20, 44, 44)), Box(0, 0, 64, 64)
    plain = load_compact_segmenter(tmp_path / "model.safetensors")
    first = plain.decode(plain.embed(image, whole), prompts)
    low, high = np.quantile(first.low_res_logits, [0.3, 0.7])
    wide, narrow = (
        load_compact_segmenter(tmp_path / "model.safetensors", mask_threshold=float(value)) for value in (low, high)
    )
    masks = [one.decode(one.embed(image, whole), prompts).mask for one in (wide, narrow)]
    assert masks[0].mean() > 0.6
    assert 0 < masks[1].mean() < 0.4
    assert not (masks[1] & ~masks[0]).any()


@pytest.mark.parametrize("side", [24, 90, 300])
def test_shipped_weights_outline_a_plain_disc(side: int) -> None:
    image = np.full((600, 700, 3), (96, 104, 88), np.uint8)
    rows, columns = np.mgrid[:600, :700]
    disc = (rows - 300) ** 2 + (columns - 350) ** 2 <= (side / 2) ** 2
    image[disc] = (225, 222, 215)
    box = Box.of_mask(disc)
    segmenter = load_compact_segmenter(SHIPPED)
    embedding = segmenter.embed(image, segmenter.window_for(box, disc.shape))
    mask = segmenter.decode(embedding, Prompts(box=box)).mask
    assert (mask & disc).sum() / (mask | disc).sum() > 0.85
