"""The compact grounder's network, its file and the boxes read from its maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.pipeline.grounding.compact.detections import cell_boxes, detect, merge, peaks, prepare
from backend.pipeline.grounding.compact.detector_file import load_detector, save_detector, save_without
from backend.pipeline.grounding.compact.network import STRIDES, Calibration, Detector, DetectorConfig, DetectorOutput
from dataset_tools.errors import WeightsError

TINY = DetectorConfig(("ship", "vehicle"), widths=(4, 8, 8, 8, 8), depths=(1, 1, 1, 1), pyramid_width=8)


def maps(height: int, width: int) -> DetectorOutput:
    """Output of an image without any object."""
    return DetectorOutput(
        [torch.full((1, 2, height // s, width // s), -20.0) for s in STRIDES],
        [torch.zeros(1, 4, height // s, width // s) for s in STRIDES],
        None,
    )


def test_outputs_have_one_map_per_stride() -> None:
    detector = Detector(TINY)
    output = detector(torch.rand(2, 3, 64, 96) * 255)
    assert [tuple(level.shape) for level in output.heat] == [(2, 2, 16, 24), (2, 2, 8, 12), (2, 2, 4, 6)]
    assert [tuple(level.shape) for level in output.sides] == [(2, 4, 16, 24), (2, 4, 8, 12), (2, 4, 4, 6)]
    assert Detector(replace(TINY, places=("ship",)))(torch.rand(1, 3, 64, 96)).sides[0].shape == (1, 8, 16, 24)
    assert output.semantic is not None
    assert detector.eval()(torch.rand(1, 3, 64, 96)).semantic is None
    with pytest.raises(ValueError, match="multiples of 32"):
        detector(torch.rand(1, 3, 60, 96))


def test_fusing_changes_nothing_but_speed() -> None:
    torch.manual_seed(0)
    detector = Detector(TINY)
    for _ in range(3):  # move the normalisation statistics away from their start
        detector(torch.rand(2, 3, 64, 64) * 255)
    detector.eval()
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        before = detector(image).heat[0]
        detector.fuse()
        after = detector(image).heat[0]
    assert torch.allclose(before, after, atol=1e-4)


def test_saved_weights_give_the_same_maps(tmp_path: Path) -> None:
    torch.manual_seed(1)
    detector = Detector(TINY).eval()
    calibration = Calibration({"ship": 0.4, "vehicle": 0.3}, 1.5, 0.45, (640, 960))
    save_detector(detector, calibration, tmp_path / "model.safetensors")
    loaded, read = load_detector(tmp_path / "model.safetensors")
    assert loaded.config == TINY
    assert read == calibration
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        assert torch.allclose(detector(image).sides[1], loaded(image).sides[1], atol=1e-2)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no grounder weights at"):
        load_detector(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_detector(tmp_path / "text.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="format None"):
        load_detector(tmp_path / "other.safetensors")


def test_default_network_fits_its_budget() -> None:
    assert sum(p.numel() for p in Detector(DetectorConfig()).parameters()) <= 6_000_000


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_peak_becomes_its_box(level: int) -> None:
    stride = STRIDES[level]
    output = maps(128, 128)
    output.heat[level][0, 1, 3, 2] = 2.0
    output.heat[level][0, 1, 3, 3] = 1.0  # beside the peak: suppressed
    output.sides[level][0, :, 3, 2] = torch.log(torch.tensor([1.0, 2.0, 1.5, 0.5]))
    boxes, scores, labels = peaks(output, 0.3)
    center_x, center_y = 2.5 * stride, 3.5 * stride
    expected: list[float] = [center_x - stride, center_y - 2 * stride, center_x + 1.5 * stride, center_y + 0.5 * stride]
    assert np.allclose(boxes, np.array([expected]), atol=1e-3)
    assert np.allclose(scores, torch.tensor([2.0]).sigmoid().numpy())
    assert labels.tolist() == [1]


def test_cell_boxes_of_zero_reach_one_stride() -> None:
    box = cell_boxes(torch.zeros(1, 4, 2, 3), 8)[0, :, 1, 2]
    assert box.tolist() == [20 - 8, 12 - 8, 20 + 8, 12 + 8]


def test_the_best_box_per_category_is_kept_and_the_rest_votes() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 12], [0, 0, 10, 10], [30, 30, 40, 40]], np.float32)
    scores = np.array([0.9, 0.3, 0.8, 0.5], np.float32)
    kept, kept_scores, labels = merge(
        boxes, scores, np.array([0, 0, 1, 0]), np.zeros(4, np.int64), factors=np.ones(1), overlap=0.5
    )
    assert np.allclose(kept, np.array([[0, 0, 10, 10.5], [0, 0, 10, 10], [30, 30, 40, 40]]))
    assert np.allclose(kept_scores, [0.9, 0.8, 0.5])
    assert labels.tolist() == [0, 1, 0]


def test_what_only_one_reading_sees_is_doubtful() -> None:
    boxes = np.array([[0, 0, 10, 10], [30, 30, 40, 40], [30, 30, 40, 41]], np.float32)
    kept, scores, _ = merge(
        boxes,
        np.array([0.9, 0.6, 0.5], np.float32),
        np.zeros(3, np.int64),
        np.array([0, 0, 1]),
        factors=np.array([1.5, 2.0]),
        overlap=0.5,
    )
    assert kept[0][0] == 30
    assert np.allclose(scores, [0.55, 0.45])


def test_a_reading_too_coarse_for_an_object_is_not_asked() -> None:
    boxes = np.array([[0, 0, 15, 10], [30, 30, 130, 140]], np.float32)
    _, scores, _ = merge(
        boxes,
        np.array([0.9, 0.8], np.float32),
        np.zeros(2, np.int64),
        np.ones(2, np.int64),
        factors=np.array([0.4, 1.0]),
        overlap=0.5,
    )
    assert np.allclose(scores, [0.9, 0.4])


def test_nothing_to_merge() -> None:
    none = np.zeros(0, np.int64)
    boxes, scores, labels = merge(
        np.zeros((0, 4), np.float32), none.astype(np.float32), none, none, factors=np.array([0.5, 1.0]), overlap=0.5
    )
    assert boxes.shape == (0, 4)
    assert not len(scores)
    assert not len(labels)


def test_prepared_image_is_scaled_then_padded() -> None:
    image = np.full((100, 200, 3), 200, np.uint8)
    tensor = prepare(image, 0.5)
    assert tuple(tensor.shape) == (1, 3, 64, 128)
    assert (tensor[0, :, :50, :100] == 200).all()
    assert (tensor[0, 0, 50:, :] == 102).all()


def test_bfloat16_finds_nearly_the_same() -> None:
    torch.manual_seed(2)
    detector = Detector(DetectorConfig(("ship",), widths=(8, 8, 8, 8, 8), depths=(1, 1, 1, 1), pyramid_width=8)).eval()
    image = np.random.default_rng(1).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    exact, rounded = (detect(detector, image, (96,), 0.0, overlap=0.3, bfloat16=b) for b in (False, True))
    assert exact[0].score == pytest.approx(rounded[0].score, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (333, 40), (64, 64)])
def test_any_image_size_gives_boxes_inside_the_image(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    detector = Detector(TINY).eval()
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    found = detect(detector, image, (64, 128), threshold=0.0)
    scores = [d.score for d in found]
    assert scores == sorted(scores, reverse=True)
    for detection in found:
        assert detection.box == detection.box.clip(shape[1], shape[0])
        assert detection.category in TINY.categories


def test_probability_is_even_where_it_was_calibrated_and_rises_with_the_score() -> None:
    calibration = Calibration({"ship": 0.3, "vehicle": 0.6}, slope=1.5)
    assert calibration.probability("ship", 0.3) == pytest.approx(0.5)
    assert calibration.probability("vehicle", 0.6) == pytest.approx(0.5)
    values = [calibration.probability("ship", score) for score in (0.0, 0.1, 0.4, 0.8, 1.0)]
    assert values == sorted(values)
    assert 0 < values[0] < 0.01
    assert 0.99 < values[-1] < 1


def test_weights_without_a_category_have_no_output_for_it_and_say_of_the_others_what_they_said(tmp_path: Path) -> None:
    torch.manual_seed(3)
    categories = ("ship", "vehicle", "airplane", "small vehicle", "large vehicle")
    sizes = DetectorConfig(categories, widths=(8, 8, 8, 8, 8), depths=(1, 1, 1, 1), pyramid_width=8)
    whole, less = tmp_path / "whole.safetensors", tmp_path / "less.safetensors"
    save_detector(Detector(sizes), Calibration(dict.fromkeys(categories, 0.5)), whole)
    save_without(whole, ["vehicle"], less)
    (before, _), (after, calibration) = load_detector(whole), load_detector(less)
    assert after.config.categories == ("ship", "airplane"), "kinds of what is gone are gone too"
    assert set(calibration.even) == {"ship", "airplane"}
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        told, kept = before(image), after(image)
    for level in range(3):
        assert torch.allclose(kept.heat[level], told.heat[level][:, [0, 2]], atol=1e-5)
        assert torch.allclose(kept.sides[level], told.sides[level], atol=1e-5)
