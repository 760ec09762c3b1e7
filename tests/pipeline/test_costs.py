from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from torch.utils.flop_counter import FlopCounterMode

from backend.pipeline import load_pipeline
from backend.pipeline.config import config_names, load_config
from backend.pipeline.costs import gflop, seconds_per_image, throughput
from backend.pipeline.grounding.compact.grounder import CompactGrounder
from backend.pipeline.types import Box
from backend.pipeline.weights import REGISTRY


@pytest.mark.parametrize("size", ["b", "l", "h"])
def test_recorded_work_of_sam_is_what_torch_counts(size: str) -> None:
    with torch.device("meta"):
        encoder = sam_model_registry[f"vit_{size}"]().image_encoder.eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            encoder(torch.zeros(1, 3, 1024, 1024))
    assert counter.get_total_flops() / 1e9 == pytest.approx(REGISTRY[f"sam_vit_{size}"].gflop, rel=0.01)


def test_recorded_work_of_the_compact_networks_is_what_torch_counts() -> None:
    pipeline = load_pipeline("compact")
    assert isinstance(pipeline.grounder, CompactGrounder)
    image = np.full((800, 800, 3), 90, np.uint8)
    counts = []
    for look in (pipeline.grounder.detections, lambda image: pipeline.segmenter.embed(image, Box(0, 0, 200, 200))):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            look(image)
        counts.append(counter.get_total_flops() / 1e9)
    grounder, encoder = REGISTRY["compact_grounder"].gflop, REGISTRY["compact_segmenter"].gflop
    assert counts == pytest.approx([grounder, encoder], rel=0.03)
    assert gflop(pipeline.config) == pytest.approx(counts[0] + 2 * counts[1], rel=0.03)  # two looks outline a pre-label


def test_every_shipped_config_has_a_cost() -> None:
    speeds = {False: 50.0, True: 150.0}
    configs = {name: load_config(name) for name in config_names()}
    seconds = {
        name: seconds_per_image(one, speeds) for name, one in configs.items() if one.grounder.weights is not None
    }
    assert all(value is not None and value > 0 for value in seconds.values())
    assert seconds["sam_vit_b"] == pytest.approx((19.6 + 972) / 50)
    assert seconds["lqvg_sam_vit_h"] == max(value for value in seconds.values() if value is not None)
    config = load_config("sam_vit_b")
    lowered = config.segmenter.model_copy(update={"options": {"autocast": True}})
    assert seconds_per_image(config.model_copy(update={"segmenter": lowered}), speeds) == pytest.approx(
        19.6 / 50 + 972 / 150
    )


def test_own_weights_have_no_known_cost() -> None:
    config = load_config("sam_vit_b")
    own = config.model_copy(update={"grounder": config.grounder.model_copy(update={"weights": "mine.pth"})})
    assert gflop(own) is None
    assert seconds_per_image(own, {False: 1.0, True: 1.0}) is None


def test_throughput_is_measured() -> None:
    assert throughput(repeats=1) > 0.1
