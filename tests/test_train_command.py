"""``pslg train``: what every kind of training needs is asked for, not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli import pslg
from dataset_tools.errors import ConfigError, PslgError


@pytest.mark.parametrize("kind", ["compact-grounder", "compact-segmenter", "lqvg", "sam-decoder"])
def test_training_asks_for_its_data(kind: str) -> None:
    result = CliRunner().invoke(pslg, ["train", kind])
    assert result.exit_code == 2
    assert "Missing option '--data'" in result.output or "Missing option '--config'" in result.output
    shown = CliRunner().invoke(pslg, ["train", kind, "--help"]).output
    assert "../" not in shown


OPTIONS = {
    "compact-grounder": ("--set", "init=null"),
    "compact-segmenter": ("--set", "init=null"),
    "lqvg": ("--device", "cpu"),
    "sam-decoder": (),
}


def called(kind: str, folder: Path, *more: str) -> None:
    """Train on a folder that holds none of the sets that the training config names."""
    (folder / "data").mkdir(exist_ok=True)
    given = ["train", kind, "--data", str(folder / "data"), "--out", str(folder / "run"), *OPTIONS[kind], *more]
    if kind == "lqvg":
        given += ["--tokenizer", str(folder / "data")]
    CliRunner().invoke(pslg, given, catch_exceptions=False)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_folder_that_holds_another_run_is_refused_before_data_is_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="was started with another config"):
        called(kind, tmp_path, "--resume")
    with pytest.raises(ConfigError, match="already holds a run"):
        called(kind, tmp_path)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_training_without_its_data_leaves_no_run_behind(kind: str, tmp_path: Path) -> None:
    """Once --data is put right, the same command works: no --resume is asked for."""
    for _ in range(2):
        with pytest.raises(PslgError, match="data"):
            called(kind, tmp_path)
    assert not (tmp_path / "run").exists()
