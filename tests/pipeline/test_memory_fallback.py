from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from backend.pipeline.memory_fallback import MemoryFallback, placed
from backend.pipeline.segmentation.sam import SamSegmenter
from dataset_tools.errors import ConfigError
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
