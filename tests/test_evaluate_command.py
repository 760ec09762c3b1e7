"""``pslg evaluate`` with several configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.commands.evaluate import evaluate
from dataset_tools import synthetic


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = [synthetic.draw_scene(seed, width=320, height=240) for seed in (3, 4)]
    return synthetic.write(tmp_path_factory.mktemp("scenes"), drawn, split=(0.0, 0.0, 1.0))


def test_two_configs_stand_side_by_side(scenes: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text(
        "grounder: {kind: compact, weights: compact_grounder}\n"
        "segmenter: {kind: compact-sam, weights: compact_segmenter}\n"
        "foreground_points: {enabled: false}\nboundary: {enabled: false}\n"
    )
    words = ["--data", str(scenes), "--limit", "3", "--config", "compact", "--config", str(plain)]
    both = CliRunner().invoke(evaluate, [*words, "--json"], catch_exceptions=False)
    assert both.exit_code == 0, both.output
    first, second = json.loads(both.stdout)["configs"]
    assert first["model_version"].startswith("compact-")
    assert second["model_version"].startswith("plain-")
    assert first["n"] == second["n"]
    one = CliRunner().invoke(evaluate, [*words[:4], "--config", str(plain), "--json"], catch_exceptions=False)
    assert json.loads(one.stdout)["mIoU"] == second["mIoU"]
    table = CliRunner().invoke(evaluate, words, catch_exceptions=False)
    lines = {line[:28].strip(): line[28:].split() for line in table.stdout.splitlines()}
    assert lines["model"] == [first["model_version"], second["model_version"]]
    assert lines["mIoU"] == [f"{100 * report['mIoU']:.1f}" for report in (first, second)]
    refused = CliRunner().invoke(evaluate, [*words, "--gallery", str(tmp_path / "worst.png")])
    assert refused.exit_code == 2
    assert "one --config" in refused.output
