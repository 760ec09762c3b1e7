"""Where networks compute and in which precision: a GPU that is too small, bfloat16 where it saves time."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from backend.pipeline.devices import MemoryFallback, in_bfloat16, multiplies_bfloat16, placed
from backend.pipeline.grounding.compact.detections import detect
from backend.pipeline.grounding.compact.network import Detector, DetectorConfig
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.training.adapter.views import FeatureCache, FeatureView, detections_of
from dataset_tools.errors import ConfigError
from tests.learning.project_scenes import panels
from tests.pipeline.segmentation.scarce import MESSAGE, make_scarce
from tests.pipeline.segmentation.small_sams import small_vit_sam


def test_an_image_that_does_not_fit_is_embedded_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (50, 60, 3), np.uint8) for _ in range(6)]
    expected = [SamSegmenter(small_vit_sam()).embed(image) for image in images]
    segmenter = SamSegmenter(small_vit_sam())
    key = segmenter.encoder_hash
    make_scarce(segmenter)
    counted: list[int] = []
    segmenter.memory_fallback.count = lambda: counted.append(1)
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(3) as pool:
        found = list(pool.map(segmenter.embed, images))
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.features, other.features)
        assert one.key == other.key
    assert segmenter.encoder_hash == key
    assert len(counted) == 6
    (record,) = caplog.records
    assert MESSAGE.splitlines()[0] in record.getMessage()
    assert "documentation" not in record.getMessage()


def test_the_copy_shares_no_tensor_and_the_network_stays() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    seen: list[nn.Module] = []

    def compute(network: nn.Sequential) -> torch.Tensor:
        seen.append(network)
        if network is module:
            raise torch.cuda.OutOfMemoryError(MESSAGE)
        result: torch.Tensor = network(torch.ones(2, 3))
        return result

    fallback = MemoryFallback(module, "a network")
    first, second = (fallback.run(compute) for _ in range(2))
    assert torch.equal(first, module(torch.ones(2, 3)))
    assert torch.equal(first, second)
    assert seen[0] is seen[2] is module
    assert seen[1] is seen[3]
    own, copied = ({t.data_ptr() for t in [*network.parameters(), *network.buffers()]} for network in (module, seen[1]))
    assert own.isdisjoint(copied)


def test_other_errors_and_a_cpu_without_memory_are_raised() -> None:
    module = nn.Linear(2, 2)

    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(RuntimeError, match="shape"):
        MemoryFallback(module, "a network").run(lambda _: fail(RuntimeError("shape")))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        MemoryFallback(module, "a network").run(lambda _: fail(torch.cuda.OutOfMemoryError(MESSAGE)))


def test_a_network_that_does_not_fit_at_all_stays_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    class Large(nn.Linear):
        def to(self, device: str) -> Large:  # type: ignore[override]
            if device != "cpu":
                raise torch.cuda.OutOfMemoryError(MESSAGE)
            return self

    module = Large(2, 2)
    assert placed(module, "cuda", "the segmenter") is module
    assert "stays on the CPU" in caplog.text
    assert next(module.parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    ("autocast", "lowered"), [(False, False), (True, True), ("bfloat16", True), ("float16", False)]
)
def test_precision_of_the_encoder(autocast: bool, lowered: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    exact = SamSegmenter(small_vit_sam(), embedding_dtype="float32").embed(image).features
    segmenter = SamSegmenter(small_vit_sam(), embedding_dtype="float32", autocast=autocast)
    features = segmenter.embed(image).features
    assert np.array_equal(features, exact) != lowered
    assert np.allclose(features, exact, atol=0.05 * np.abs(exact).max())


def test_precisions_have_keys_of_their_own_and_unknown_ones_are_refused() -> None:
    hashes = [SamSegmenter(small_vit_sam(), autocast=choice).encoder_hash for choice in (False, True, "float16")]
    assert len(set(hashes)) == 3
    assert SamSegmenter(small_vit_sam(), autocast="bfloat16").encoder_hash == hashes[1]
    with pytest.raises(ConfigError, match="int8"):
        SamSegmenter(small_vit_sam(), autocast="int8")  # type: ignore[arg-type]


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
