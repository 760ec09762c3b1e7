"""Replay images: drawn ones are always the same; what is wrong with a folder ends in a line when something starts."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from backend import cli
from backend.database import Database
from backend.learning.retraining.replay import check_replay, drawn_scenes, read_replay
from backend.learning.versions.jobs import TrainingJobs
from backend.server.app import create_app
from backend.settings import Settings
from dataset_tools import synthetic
from dataset_tools.errors import ConfigError
from dataset_tools.formats import coco_jsonl
from dataset_tools.image_files import file_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scenes = (synthetic.draw_scene(seed, 160, 128) for seed in range(4))
    synthetic.write(tmp_path / "good", scenes, split=(0.5, 0.5, 0.0))
    return tmp_path / "good"


def _without_val(folder: Path) -> None:
    parts = json.loads((folder / "split.json").read_text())
    del parts["val"]
    (folder / "split.json").write_text(json.dumps(parts))


def _val_empty(folder: Path) -> None:
    parts = json.loads((folder / "split.json").read_text())
    (folder / "split.json").write_text(json.dumps({**parts, "val": []}))


PARTS = {"train": ["00001.png", "00002.png"], "val": ["00003.png", "00004.png"]}
FAULTS: dict[str, Callable[[Path], object]] = {
    "is not a folder": shutil.rmtree,
    "not valid JSON": lambda folder: (folder / "annotations.json").write_text("{"),
    "no split 'val'": _without_val,
    "part 'val' has no images": _val_empty,
    "image file .* does not exist": lambda folder: shutil.rmtree(folder / "images"),
}


def test_a_look_at_the_start_reads_no_annotations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_jsonl, "load_json", lambda path: {"split.json": PARTS}[path.name])
    check_replay(folder)


@pytest.mark.parametrize("message", FAULTS)
def test_what_is_wrong_with_the_folder_is_said_with_the_setting(folder: Path, tmp_path: Path, message: str) -> None:
    check_replay(None)
    check_replay(folder)
    found = read_replay(folder, tmp_path / "drawn")
    assert [len(found.training), len(found.gate)] == [2, 2]
    FAULTS[message](folder)
    for look in (check_replay, lambda wrong: read_replay(wrong, tmp_path / "drawn")):
        with pytest.raises(ConfigError, match=message) as error:
            look(folder)
        assert f"PSLG_TRAIN_REPLAY names {folder}" in str(error.value)


@pytest.mark.parametrize("command", [["serve", "--port", "1"], ["train", "project", "2"]])
def test_a_wrong_folder_ends_the_command_in_a_line_before_anything_begins(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PSLG_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PSLG_TRAIN_REPLAY", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sys, "argv", ["pslg", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"pslg: PSLG_TRAIN_REPLAY names {tmp_path / 'nowhere'}")
    database = Database.of_state(tmp_path / "state")
    assert TrainingJobs(database).jobs() == []
    database.close()


def test_doctor_and_the_application_look_too(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    environ = {"PSLG_STATE_DIR": str(tmp_path), "PSLG_TRAIN_REPLAY": str(nowhere), "PSLG_CONFIG": "none.yaml"}
    output = CliRunner(env=environ).invoke(cli.pslg, ["doctor"]).output
    assert f"problem PSLG_TRAIN_REPLAY names {nowhere}" in " ".join(output.split())
    with pytest.raises(ConfigError, match="PSLG_TRAIN_REPLAY"):
        create_app(Settings(state_dir=tmp_path, train_replay=nowhere))


def test_scenes_are_drawn_once_and_say_what_is_complete(tmp_path: Path) -> None:
    first = drawn_scenes(tmp_path, 2, seed=5, width=200, height=160)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    second = drawn_scenes(tmp_path, 2, seed=5, width=200, height=160)
    assert first == second
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == written
    assert [image.key for image in first] == [file_key(image.path) for image in first]
    assert all({item.category for item in image.objects} <= image.complete for image in first)
    assert all(image.expressions for image in first)
