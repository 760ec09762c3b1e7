"""``pslg simulate`` on drawn scenes: rounds, resuming, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli import pslg
from dataset_tools import synthetic
from dataset_tools.errors import ConfigError
from tests.learning.project_scenes import tiny_config


def test_a_simulation_goes_on_where_it_was_killed_and_reports_its_goals(tmp_path: Path) -> None:
    scenes = [synthetic.draw_scene(number, 256, 192) for number in range(40, 52)]
    data = synthetic.write(tmp_path / "data", scenes, split=(0.6, 0.0, 0.4))
    tiny_config(tmp_path)
    command = ["simulate", "--data", str(data), "--out", str(tmp_path / "out"), "--quick"]
    command += ["--base-grounder", str(tmp_path / "grounder.safetensors")]
    command += ["--base-segmenter", str(tmp_path / "segmenter.safetensors")]
    command += ["--strategies", "random,balance", "--rounds", "2", "--seeds", "1", "--labels", "4"]
    command += ["--words", "vehicle=quibble,bridge=zorbo", "--table"]
    result = CliRunner().invoke(pslg, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output

    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["unknown"]
    assert "ship" not in results["unknown"]
    assert {"quibble", "zorbo"} & set(results["unknown"])
    assert "the base grounder knows bridge: its outputs" in result.output
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.strip() in result.output
    assert "| training after 24 images, CPU minutes | 2 | 1 | not measured |" in table
    first = json.loads((tmp_path / "out" / "first_0.json").read_text())
    assert {row["objects"] for row in first} >= {1}
    assert {row["category"] for row in first} <= set(results["unknown"])
    assert results["strategies"]["random"]["labels"] == [0, 4, 8]
    assert set(results["goals"]) == {
        "few_objects", "labels_for_random", "clicks_saved", "accepted_gained", "forgotten",
    }  # fmt: skip
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000

    last = tmp_path / "out" / "balance_0" / "round_2.json"
    before = json.loads(last.read_text())
    last.unlink()
    with pytest.raises(ConfigError, match="--resume"):
        CliRunner().invoke(pslg, command, catch_exceptions=False)
    again = CliRunner().invoke(pslg, [*command, "--resume"], catch_exceptions=False)
    assert "balance 0, round 2" in again.output
    assert "random 0, round" not in again.output
    after = json.loads(last.read_text())
    assert [item["task"] for item in after["labelled"]] == [item["task"] for item in before["labelled"]]
    assert set(before["labelled"][0]) == {"task", "accepted", "iou", "clicks"}
