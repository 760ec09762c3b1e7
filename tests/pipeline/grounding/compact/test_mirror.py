"""An image and its mirror image read together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from backend.pipeline.grounding.compact.detections import Detection, detect, detect_anywhere
from backend.pipeline.grounding.compact.detector_file import load_detector, save_detector
from backend.pipeline.grounding.compact.grounder import CompactGrounder
from backend.pipeline.grounding.compact.network import Calibration, Detector, DetectorConfig
from backend.pipeline.types import Image
from backend.training.adapter.training import with_adapter
from backend.training.adapter.views import FeatureCache, detections_of
from dataset_tools.geometry import Box
from tests.learning.project_scenes import LABEL, panels

SCALES = (64, 128)


@pytest.fixture
def detector() -> Detector:
    """Of random weights, with boxes of their own for ships."""
    torch.manual_seed(0)
    sizes = DetectorConfig(("ship", "vehicle"), widths=(8, 8, 8, 8, 8), depths=(1, 1, 1, 1), places=("ship",))
    made = Detector(sizes).eval()
    torch.nn.init.normal_(made.heat.out.weight)  # else all cells are about as cold
    torch.nn.init.zeros_(made.heat.bias)
    torch.nn.init.normal_(made.sides.out.weight, std=0.1)
    return made


def noise(height: int, width: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def described(found: Sequence[Detection], mirrored_at: float | None = None) -> list[tuple[str, list[float]]]:
    """Category, score and box of each, in pixels of the mirror image of so wide an image if asked for."""
    boxes = [d.box for d in found]
    if mirrored_at is not None:
        boxes = [Box(mirrored_at - box.x1, box.y0, mirrored_at - box.x0, box.y1) for box in boxes]
    return [(d.category, [d.score, *box]) for d, box in zip(found, boxes, strict=True)]


def agree(found: list[tuple[str, list[float]]], wanted: list[tuple[str, list[float]]]) -> bool:
    """Whether the same objects are found, whatever the order of those with equal scores."""
    return len(found) == len(wanted) and all(
        any(name == other and numbers == pytest.approx(others, abs=1e-2) for other, others in wanted)
        for name, numbers in found
    )


@pytest.mark.parametrize("size", [(64, 128), (96, 64)])
def test_the_mirror_image_has_the_mirrored_boxes(detector: Detector, size: tuple[int, int]) -> None:
    image = noise(*size)
    in_mirror = np.ascontiguousarray(image[:, ::-1])
    sides = (max(size),)
    wanted = described(detect(detector, image, sides, 0.05, mirrored=1), size[1])
    assert len(wanted) > 10
    assert agree(described(detect(detector, in_mirror, sides, 0.05, mirrored=1)), wanted)
    assert not agree(described(detect(detector, in_mirror, sides, 0.05)), wanted), "alone the network has a left"


def test_only_the_coarsest_readings_are_taken_twice_and_once_an_image(detector: Detector) -> None:
    read: list[tuple[int, ...]] = []
    detector.register_forward_pre_hook(lambda _, given: read.append(tuple(given[0].shape)))
    even = {"ship": 0.4, "vehicle": 0.4}
    grounder = CompactGrounder(detector, Calibration(even, scales=SCALES, mirrored=1), bfloat16=False)
    image = noise(100, 200)
    first = grounder.detections(image)
    assert read == [(2, 3, 32, 64), (1, 3, 64, 128)]
    assert grounder.detections(image) == first
    assert len(read) == 2
    assert described(first) == described(detect_anywhere(detector, image, SCALES, 0.05, mirrored=1))
    read.clear()
    detect(detector, image, SCALES, 0.05)
    assert [shape[0] for shape in read] == [1, 1]


def test_kept_readings_are_averaged_as_those_of_inference(detector: Detector, tmp_path: Path) -> None:
    adapted = with_adapter(detector, (LABEL,), 8, seed=0)
    image = panels(tmp_path / "images", 1)[0]
    pixels = image.pixels()[:, :-23]  # so wide that padding is mirrored too
    cv2.imwrite(str(image.path), pixels[..., ::-1])
    cut = replace(image, width=pixels.shape[1])
    exact = detect(adapted, pixels, SCALES, 0.05, mirrored=1)
    for _ in range(2):  # computed, then read back
        kept = detections_of(FeatureCache(detector, tmp_path / "kept"), adapted, cut, SCALES, 0.05, mirrored=1)
        assert kept[0].score == pytest.approx(exact[0].score, abs=0.01)
        assert kept[0].box.iou(exact[0].box) > 0.9
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == 3


def test_weights_that_say_nothing_of_it_are_read_once(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_detector(detector, Calibration({"ship": 0.4, "vehicle": 0.4}, scales=SCALES, mirrored=1), path)
    assert load_detector(path)[1].mirrored == 1
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, Any] = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    calibration = json.loads(metadata["calibration"])
    del calibration["mirrored"]
    save_file(tensors, path, {**metadata, "calibration": json.dumps(calibration)})
    assert load_detector(path)[1].mirrored == 0
