from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from backend.training.run import Ema, TrainingRun, load_recipe, save_weights, step_generator
from dataset_tools.errors import ConfigError, WeightsError

CONFIG = {"seed": 1, "steps": 10}


def test_overrides_are_read_as_yaml_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("seed: 1\ndata: {train: a, sizes: [1, 2]}\n")
    assert load_recipe(path, ["seed=5", "data.sizes=[3]"]) == {"seed": 5, "data": {"train": "a", "sizes": [3]}}
    for wrong in ("seeds=5", "seed", "data.val=b", "seed.x=1"):
        with pytest.raises(ConfigError, match="override"):
            load_recipe(path, [wrong])
    path.write_text("- a list")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_recipe(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_recipe(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(tmp_path / "missing.yaml")


def test_a_step_draws_the_same_whatever_came_before() -> None:
    assert step_generator(3, 17).integers(1 << 30) == step_generator(3, 17).integers(1 << 30)
    assert step_generator(3, 17).integers(1 << 30) != step_generator(3, 18).integers(1 << 30)
    assert step_generator(3, 17).integers(1 << 30) != step_generator(4, 17).integers(1 << 30)


def test_resuming_gives_state_best_value_and_drops_later_log_lines(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path / "run", CONFIG, criterion="iou")
    assert run.restore() is None
    weight = torch.arange(3.0)
    run.log("train", 1, loss=2.0)
    assert run.keep_if_best(1, 0.5, {"w": weight})
    run.save(1, model={"w": weight})
    run.log("train", 2, loss=1.0)

    again = TrainingRun(tmp_path / "run", CONFIG, criterion="iou", resume=True)
    state = again.restore()
    assert state is not None
    assert state["step"] == 1
    assert torch.equal(state["model"]["w"], weight)
    assert [line["step"] for line in again.entries()] == [1]
    assert not again.keep_if_best(2, 0.4, {"w": weight + 1})
    assert again.keep_if_best(3, 0.6, {"w": weight + 2})
    assert torch.equal(load_file(tmp_path / "run" / "best.safetensors")["w"], weight + 2)
    assert json.loads((tmp_path / "run" / "best.json").read_text()) == {"step": 3, "criterion": "iou", "value": 0.6}


def test_smaller_can_be_better(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, CONFIG, criterion="loss", mode="min")
    assert [run.keep_if_best(step, value, {}) for step, value in enumerate((3.0, 4.0, 2.0))] == [True, False, True]


def test_a_run_is_neither_overwritten_nor_mixed_with_another_config(tmp_path: Path) -> None:
    TrainingRun(tmp_path, CONFIG, criterion="iou").restore()
    with pytest.raises(ConfigError, match="--resume"):
        TrainingRun(tmp_path, CONFIG, criterion="iou")
    with pytest.raises(ConfigError, match="steps differ"):
        TrainingRun(tmp_path, CONFIG | {"steps": 11}, criterion="iou", resume=True)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"checkpoint\.pt is damaged"):
        TrainingRun(tmp_path, CONFIG, criterion="iou").restore()


def test_curves_show_every_quantity(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, CONFIG, criterion="iou")
    run.plot()
    assert not (tmp_path / "curves.png").exists()
    for step in range(3):
        run.log("train", step, loss=1 / (step + 1), iou=step / 3)
        run.log("validation", step, iou=step / 4, other=1.0)
    run.plot()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_half_precision_weights_keep_integers_and_metadata(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", {"a": torch.ones(2), "n": torch.tensor(3)}, torch.float16, {"k": "v"})
    tensors = load_file(tmp_path / "w.safetensors")
    assert tensors["a"].dtype == torch.float16
    assert tensors["n"] == 3


def test_the_average_follows_the_module_and_survives_a_checkpoint() -> None:
    linear = nn.Linear(2, 2)
    module = nn.Sequential(linear, nn.BatchNorm1d(2))
    ema = Ema(module, decay=0.9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    before = ema.tensors["0.weight"].clone()
    for _ in range(200):
        ema.update(module)
    assert torch.allclose(ema.tensors["0.weight"], linear.weight, atol=1e-3)
    assert not torch.allclose(before, linear.weight, atol=0.5)
    other = Ema(module, decay=0.9)
    other.load_state_dict(ema.state_dict())
    assert other.updates == ema.updates
    assert all(torch.equal(other.tensors[name], value) for name, value in ema.tensors.items())


def test_steps_differ_between_seeds_in_bulk() -> None:
    draws = {tuple(step_generator(seed, step).integers(1 << 30, size=2)) for seed in range(20) for step in range(20)}
    assert len(draws) == 400
    assert all(np.isfinite(draw).all() for draw in draws)
