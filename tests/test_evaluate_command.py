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


def test_other_sentences_are_told_by_style_and_by_the_objects_chosen(scenes: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (scenes / "expressions.jsonl").read_text("utf-8").splitlines()]
    one = next(row for row in rows if row["kind"] == "single")
    asked = [
        one | {"id": 1, "set": scenes.name, "style": "terse"},
        one | {"id": 2, "set": scenes.name, "style": "natural", "expression": f"{one['expression']} with faded lines"},
        one | {"id": 3, "set": "another_folder", "image": "nowhere.png", "style": "terse"},
    ]
    file = tmp_path / "sentences.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = ["--data", str(scenes), "--expressions", str(file)]
    report = json.loads(CliRunner().invoke(evaluate, [*words, "--json"], catch_exceptions=False).stdout)
    assert report["n"] == 2  # the row of another folder is passed over
    choices = report["choices"]
    assert set(choices["by_style"]) == {"terse", "natural"}
    assert choices["by_style"]["terse"]["right"] == 1.0
    for values in (choices, *choices["by_style"].values()):
        assert values["right"] + values["wrong"] + values["abstained"] == pytest.approx(1.0)
    table = CliRunner().invoke(evaluate, words, catch_exceptions=False).stdout
    assert "objects chosen: right" in table
    assert "terse: right 100.0, wrong 0.0" in table
