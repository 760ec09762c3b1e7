"""``pslg train``: what every kind of training needs is asked for, not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli import pslg
from dataset_tools.errors import ConfigError


@pytest.mark.parametrize("kind", ["compact-grounder", "compact-segmenter", "lqvg", "sam-decoder"])
def test_training_asks_for_its_data(kind: str) -> None:
    result = CliRunner().invoke(pslg, ["train", kind])
    assert result.exit_code == 2
    assert "Missing option '--data'" in result.output or "Missing option '--config'" in result.output
    shown = CliRunner().invoke(pslg, ["train", kind, "--help"]).output
    assert "../" not in shown


@pytest.mark.parametrize("kind", ["compact-grounder", "compact-segmenter"])
def test_a_folder_that_holds_another_run_is_refused_before_images_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "data").mkdir()  # none of the sets that the training config names
    called = ["train", kind, "--data", str(tmp_path / "data"), "--out", str(tmp_path), "--resume", "--set", "init=null"]
    with pytest.raises(ConfigError, match="was started with another config"):
        CliRunner().invoke(pslg, called, catch_exceptions=False)
