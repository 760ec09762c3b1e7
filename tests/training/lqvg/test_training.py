"""``pslg train lqvg``: it learns, resumes, runs in several processes, and writes the published layout."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image as PilImage

from backend.commands.train_lqvg import CONFIGS
from backend.commands.train_lqvg import lqvg as command
from backend.pipeline.grounding.lqvg import load_lqvg, load_lqvg_grounder
from backend.pipeline.grounding.lqvg.architecture import Architecture
from backend.training.lqvg.run import first_network, run_lqvg_training
from backend.training.lqvg.settings import LqvgSettings
from backend.training.run import load_recipe
from dataset_tools.errors import ConfigError, WeightsError
from tests.lqvg_tiny import TINY, tiny_network, write_checkpoint, write_tokenizer

COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 230)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four gray images with a red, a green and a blue rectangle each, one expression per rectangle.

    They are square: inference letterboxes with borders that count as image, which training never sees.
    """
    folder = tmp_path_factory.mktemp("lqvg_data")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    coco: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "ship"}]}
    lines = []
    for number in range(4):
        pixels = np.full((64, 64, 3), 120, dtype=np.uint8)
        for slot, (name, color) in enumerate(sorted(COLORS.items(), key=lambda _: float(rng.random()))):
            x, y, w, h = 21 * slot + int(rng.integers(1, 5)), int(rng.integers(4, 30)), 16, int(rng.integers(16, 28))
            pixels[y : y + h, x : x + w] = color
            ann = len(coco["annotations"]) + 1
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            coco["annotations"].append(
                {"id": ann, "image_id": number, "category_id": 1, "segmentation": polygon, "bbox": [x, y, w, h]}
            )
            lines.append(
                {"id": ann, "image": f"{number}.png", "category": "ship", "expression": f"the {name} ship"}
                | {"kind": "single", "ann_ids": [ann], "bbox": [x, y, x + w, y + h]}
            )
        PilImage.fromarray(pixels).save(folder / "images" / f"{number}.png")
        coco["images"].append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
    (folder / "annotations.json").write_text(json.dumps(coco))
    (folder / "expressions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = [f"{number}.png" for number in range(4)]
    (folder / "split.json").write_text(json.dumps({"train": names, "val": names}))
    write_tokenizer(folder / "tokenizer", [f"the {name} ship" for name in COLORS])
    return folder


def config(**changes: object) -> dict[str, Any]:
    sizes = dataclasses.asdict(TINY) | {"dropout": 0.0, "resnet_blocks": [1, 1, 1, 1], "resnet_width": 16}
    return load_recipe(CONFIGS / "lqvg_reduced.yaml") | {
        "architecture": sizes, "epochs": 2, "batch_size": 4, "sides": [64], "longest": 64, "log_every": 1,
        "validate_every": 1000,
    } | changes  # fmt: skip


def train(data: Path, out: Path, resume: bool = False, **changes: object) -> Path:
    return run_lqvg_training(data, data / "tokenizer", out, config(**changes), device="cpu", resume=resume)


def log(out: Path, kind: str) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_learns_which_box_the_words_name(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    weights = train(data, out, epochs=60, batch_size=6, drop_epoch=48, learning_rate=2e-3, log_every=10)
    losses = [line["loss"] for line in log(out, "train")]
    assert losses[-1] < 0.5 * losses[0]
    assert log(out, "validation")[-1]["P@0.5"] >= 0.75
    assert (out / "curves.png").stat().st_size > 0

    # the file is used as the published one is
    grounder = load_lqvg_grounder(weights, data / "tokenizer", image_size=64, device="cpu")
    image = np.asarray(PilImage.open(data / "images" / "0.png"))
    boxes = {name: grounder.ground(image, f"The {name} ship").groundings[0].box for name in COLORS}
    named = {name: image[int(b.center.y), int(b.center.x)].tolist() == list(COLORS[name]) for name, b in boxes.items()}
    assert sum(named.values()) >= 2, boxes


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    steps_of_an_epoch = 3
    # dropout on: what it draws must not depend on what was drawn before
    sizes = config()["architecture"] | {"dropout": 0.3}
    train(data, straight, epochs=2, validate_every=steps_of_an_epoch, architecture=sizes)

    class StopError(Exception):
        pass

    from backend.training.run import TrainingRun

    save = TrainingRun.save

    def save_and_stop(run: TrainingRun, step: int, **state: Any) -> None:
        save(run, step, **state)
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "save", save_and_stop)
        with pytest.raises(StopError):
            train(data, stopped, epochs=2, validate_every=steps_of_an_epoch, architecture=sizes)
    assert not (stopped / "lqvg.pth").exists()
    with pytest.raises(ConfigError, match="already holds a run"):
        train(data, stopped, epochs=2, validate_every=steps_of_an_epoch, architecture=sizes)
    train(data, stopped, resume=True, epochs=2, validate_every=steps_of_an_epoch, architecture=sizes)

    one, other = (torch.load(out / "checkpoint.pt", weights_only=True) for out in (straight, stopped))
    assert one["step"] == other["step"] == 6
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    assert [line["loss"] for line in log(straight, "train")] == [line["loss"] for line in log(stopped, "train")]


def test_two_processes_train_as_one_with_twice_the_batch(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "one", batch_size=4, epochs=1)
    overrides = {**config(batch_size=2, epochs=1)}
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(overrides))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--data", str(data), "--tokenizer", str(data / "tokenizer"), "--out", str(tmp_path / "two")]
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"),
            *("--master-port", str(port), "-m", "backend", "train", "lqvg", *arguments),
            *("--config", str(file), "--device", "cpu"),
        ],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        timeout=500,
    )
    one, two = (log(tmp_path / name, "train") for name in ("one", "two"))
    assert len(two) == 3
    # not exact: RoBERTa's own dropout draws differently in each process
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=5e-3)
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=3e-2)
    assert log(tmp_path / "two", "validation")[-1].keys() == log(tmp_path / "one", "validation")[-1].keys()
    load_lqvg(tmp_path / "two" / "lqvg.pth")


def test_bfloat16_trains_and_float16_asks_for_a_gpu(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "bf16", autocast="bfloat16", epochs=1)
    assert all(np.isfinite(line["loss"]) for line in log(tmp_path / "bf16", "train"))
    with pytest.raises(ConfigError, match="autocast float16 needs a GPU"):
        train(data, tmp_path / "fp16", autocast="float16")
    with pytest.raises(ConfigError, match="autocast must be one of off, bfloat16, float16, got 'half'"):
        train(data, tmp_path / "half", autocast="half")


def test_frozen_parts_stay_and_rates_differ(data: Path, tmp_path: Path) -> None:
    first = first_network(LqvgSettings.of(config())).state_dict()
    train(data, tmp_path, freeze_stem=True, text_rate=0, epochs=1)
    last = load_lqvg(tmp_path / "lqvg.pth").state_dict()
    changed = {name for name, tensor in last.items() if not torch.equal(tensor, first[name])}
    assert not any(
        name.startswith(("text_encoder.", "backbone.0.body.conv1", "backbone.0.body.layer1")) for name in changed
    )
    assert {"backbone.0.body.layer2.0.conv1.weight", "query_embed.weight", "resizer.fc.weight"} <= changed


def test_starts_from_published_weights_of_parts_or_of_the_whole(tmp_path: Path) -> None:
    donor = tiny_network(seed=5)
    resnet = dict(donor.get_submodule("backbone.0.body").state_dict())
    resnet |= {"fc.weight": torch.zeros(1000, 2048), "bn1.num_batches_tracked": torch.tensor(3)}
    torch.save(resnet, tmp_path / "resnet.pth")
    donor.text_encoder.save_pretrained(tmp_path / "roberta")
    started = config(resnet=str(tmp_path / "resnet.pth"), roberta=str(tmp_path / "roberta"))
    started["architecture"] = dataclasses.asdict(TINY)
    network = first_network(LqvgSettings.of(started))
    for part in ("backbone", "text_encoder"):
        expected = donor.get_submodule(part).state_dict()
        assert all(
            torch.equal(tensor, expected[name]) for name, tensor in network.get_submodule(part).state_dict().items()
        )

    whole = config(init=str(write_checkpoint(tmp_path / "lqvg.pth", seed=7)), architecture={})
    assert torch.equal(
        first_network(LqvgSettings.of(whole)).query_embed.weight, tiny_network(seed=7).query_embed.weight
    )
    with pytest.raises(ConfigError, match="init brings its own sizes"):
        first_network(LqvgSettings.of(whole | {"resnet": "x.pth"}))
    with pytest.raises(WeightsError, match=r"resnet\.pth does not hold the weights of this ResNet"):
        first_network(LqvgSettings.of(config(resnet=str(tmp_path / "resnet.pth"))))
    with pytest.raises(WeightsError, match="does not hold the RoBERTa"):
        first_network(LqvgSettings.of(config(roberta=str(tmp_path))))
    with pytest.raises(ConfigError, match="architecture has no setting 'depth'"):
        first_network(LqvgSettings.of(config(architecture={"depth": 3})))
    with pytest.raises(ConfigError, match="architecture cannot be built: hidden_dim must be a multiple of 64"):
        first_network(LqvgSettings.of(config(architecture={"hidden_dim": 100})))


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="no setting 'batchsize': did you mean 'batch_size'"):
        LqvgSettings.of(config(batchsize=4))
    values = config()
    del values["longest"]
    with pytest.raises(ConfigError, match="needs the setting 'longest'"):
        LqvgSettings.of(values)


def test_the_shipped_recipes_are_complete() -> None:
    paper, reduced = (load_recipe(CONFIGS / name) for name in ("lqvg.yaml", "lqvg_reduced.yaml"))
    assert paper.keys() == reduced.keys()
    assert Architecture(**paper["architecture"]) == Architecture()
    assert (paper["learning_rate"], paper["backbone_rate"], paper["text_rate"]) == (1e-4, 5e-5, 1e-5)
    assert sum(p.numel() for p in first_network(LqvgSettings.of(reduced)).parameters()) < 6_000_000


def test_a_tokenizer_with_more_entries_than_the_network_is_refused(data: Path, tmp_path: Path) -> None:
    sizes = json.dumps(config()["architecture"] | {"vocabulary": 30})
    arguments = ["--data", str(data), "--tokenizer", str(data / "tokenizer"), "--out", str(tmp_path)]
    result = CliRunner().invoke(
        command, [*arguments, "--config", str(CONFIGS / "lqvg_reduced.yaml"), "--set", f"architecture={sizes}"]
    )
    assert isinstance(result.exception, ConfigError)
    assert "entries, the network only 30" in str(result.exception)
    assert not (tmp_path / "config.yaml").exists()
