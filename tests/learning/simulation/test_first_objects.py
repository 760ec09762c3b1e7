"""What serves after a category's first objects: lessons, and from a number on what a training makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backend.learning.simulation import first_objects as module
from backend.learning.simulation.run import SimulationSettings
from backend.learning.simulation.world import LearntModel, World, measure_all
from backend.pipeline.config import load_config
from backend.pipeline.grounding.compact.detector_file import load_detector
from backend.pipeline.segmentation.compact_sam import load_compact_segmenter
from backend.training.adapter.views import FeatureCache
from backend.training.decoder.training import DecoderOptions
from dataset_tools import synthetic
from dataset_tools.labelled import read
from tests.learning.project_scenes import tiny_config


@pytest.mark.parametrize("trained", [1, 2])
def test_a_training_serves_with_adapter_and_mask_decoder_once_there_are_enough_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: int
) -> None:
    scenes = [synthetic.draw_scene(number, 256, 192) for number in range(40, 52)]
    data = synthetic.write(tmp_path / "data", scenes, split=(0.6, 0.0, 0.4))
    config = load_config(str(tiny_config(tmp_path)))
    detector, calibration = load_detector(tmp_path / "grounder.safetensors")
    segmenter = load_compact_segmenter(tmp_path / "segmenter.safetensors")
    world = World(FeatureCache(detector, None), calibration, segmenter, config)
    served: list[LearntModel] = []
    measure: Callable[..., object] = measure_all

    def measured(world: World, model: LearntModel, tasks: object) -> object:
        served.append(model)
        return measure(world, model, tasks)

    monkeypatch.setattr(module, "measure_all", measured)
    monkeypatch.setattr(module, "TRAINED", trained)
    pool, test = read(data, "train"), read(data, "test")
    category = next(
        item.category
        for image in test
        for item in image.objects
        if item.category not in detector.config.categories
        and any(module.whole_objects(shown, item.category) for shown in pool)
    )
    rows = list(
        module.first_objects(
            world, pool, test, pool[:2], [category], 0,
            options=SimulationSettings().quick().grounder, decoder=DecoderOptions(steps=2, batch=2), counts=(1,),
            expressions=2,
        )
    )  # fmt: skip
    assert [(row["category"], row["objects"], row["images"]) for row in rows] == [(category, 1, 1)]
    (model,) = served
    before, after = segmenter.sam.state_dict(), model.segmenter.sam.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if trained == 1:
        assert category in model.detector.config.categories
        assert changed
        assert not any(name.startswith("image_encoder.") for name in changed)  # embeddings that are kept still fit
        assert not model.lessons
    else:
        assert model.lessons.keys() == {category}
        assert not changed
