"""Networks compute in bfloat16 where that saves time, and everywhere else in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backend.pipeline.grounding.compact.detections import detect
from backend.pipeline.grounding.compact.network import Detector, DetectorConfig
from backend.pipeline.precision import in_bfloat16, multiplies_bfloat16
from backend.training.adapter.views import FeatureCache, FeatureView, detections_of
from tests.learning.project_scenes import panels

CPU = torch.device("cpu")


@pytest.fixture
def detector() -> Detector:
    """With the backbone of the shipped one, whose convolutions are fused on CPUs."""
    torch.manual_seed(0)
    return Detector(DetectorConfig(("ship", "bridge"), backbone="efficientnet_lite0", pyramid_width=8)).eval()


def test_bfloat16_is_left_to_devices_that_multiply_it() -> None:
    assert multiplies_bfloat16(torch.device("cuda"))
    with in_bfloat16(CPU):
        assert torch.is_autocast_enabled("cpu") == multiplies_bfloat16(CPU)
    with in_bfloat16(CPU, False):
        assert not torch.is_autocast_enabled("cpu")


def test_a_detector_reads_images_on_every_cpu(detector: Detector, tmp_path: Path) -> None:
    image = panels(tmp_path, 1)[0]
    reading = FeatureCache(detector, tmp_path / "features").reading(image, FeatureView(96))
    assert all(np.isfinite(np.asarray(level)).all() for level in reading.features)
    exact = detect(detector, image.pixels(), [96], 0.0)
    lowered = detect(detector, image.pixels(), [96], 0.0, bfloat16=True)
    kept = detections_of(FeatureCache(detector, None), detector, image, [96], 0.0)
    assert len(exact) == pytest.approx(len(lowered), abs=20)
    assert max(d.score for d in kept) == pytest.approx(max(d.score for d in exact), abs=0.02)
