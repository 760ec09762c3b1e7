"""``--data``: one option with one meaning; what one command takes, the others take."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from backend.commands.evaluate import evaluate
from backend.commands.evaluate_clicks import evaluate_clicks
from backend.commands.train import train
from dataset_tools import formats, synthetic
from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from tests.dataset_tools.formats.test_dior_rsvg import an_object, write_xml

READERS = {
    "evaluate": ("backend.commands.evaluate", "evaluate"),
    "evaluate-clicks": ("backend.commands.evaluate_clicks", "evaluate_clicks"),
    "calibrate-score": ("backend.commands.calibrate_score", "calibrate_score"),
    "simulate": ("backend.commands.simulate", "simulate"),
    "sam-decoder": ("backend.commands.train_sam_decoder", "sam_decoder"),
    "lqvg": ("backend.commands.train_lqvg", "lqvg"),
}


def data_option(command: click.Command) -> click.Option:
    (option,) = (p for p in command.params if isinstance(p, click.Option) and p.name == "data")
    return option


def test_data_means_the_same_in_every_command() -> None:
    options = [data_option(getattr(importlib.import_module(module), name)) for module, name in READERS.values()]
    assert len({(option.help, option.required, repr(option.type)) for option in options}) == 1
    trainers = [data_option(train.get_command(None, f"compact-{name}")) for name in ("segmenter", "grounder")]  # type: ignore[arg-type]
    assert len({(option.help, option.required) for option in trainers}) == 1


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = [synthetic.draw_scene(seed, width=320, height=240) for seed in (3, 4)]
    return synthetic.write(tmp_path_factory.mktemp("scenes"), drawn, split=(0.0, 0.0, 1.0))


@pytest.mark.parametrize("name", ["rsrefseg", "masks", "webdataset"])
def test_clicks_are_counted_on_other_formats_than_coco_jsonl(name: str, scenes: Path, tmp_path: Path) -> None:
    export(formats.read(scenes), tmp_path / "out", name)
    words = ["--data", str(tmp_path / "out"), "--split", "test", "--limit", "1", "--cap", "1", "--json"]
    done = CliRunner().invoke(evaluate_clicks, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["n"] == 1


def test_other_expressions_can_be_evaluated(scenes: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (scenes / "expressions.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row["kind"] == "all"][:2]
    (tmp_path / "crowds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = ["--data", str(scenes), "--expressions", str(tmp_path / "crowds.jsonl"), "--json"]
    done = CliRunner().invoke(evaluate, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["n"] == len(asked)
    assert report["expressions"] == "crowds.jsonl"


def test_boxes_without_masks_are_refused_before_any_model_is_loaded(tmp_path: Path) -> None:
    write_xml(tmp_path, "00001", an_object())
    Image.fromarray(np.zeros((600, 800, 3), np.uint8)).save(tmp_path / "JPEGImages" / "00001.jpg")
    for command in (evaluate, evaluate_clicks):
        with pytest.raises(DatasetError, match="holds boxes and no masks"):
            CliRunner().invoke(command, ["--data", str(tmp_path), "--config", "nowhere"], catch_exceptions=False)
