"""The table over sets of images: what is counted, and that a set without a file has no row of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backend.evaluation.choices import Picked
from backend.evaluation.expressions import Outcome, Spent
from benchmarks.domains import expected_calibration_error, seconds_rows, table
from dataset_tools import synthetic
from dataset_tools.labelled import LabelledExpression, LabelledImage, Question


def test_calibration_error_weighs_the_distance_in_each_bin_by_its_count() -> None:
    assert expected_calibration_error([]) == 0
    assert expected_calibration_error([(0.95, True)] * 19 + [(0.95, False)]) == pytest.approx(0)
    assert expected_calibration_error([(0.9, False), (0.9, True), (0.1, False), (0.1, False)]) == pytest.approx(0.25)


def test_the_table_leaves_out_what_a_set_does_not_have() -> None:
    report = {"model_version": "compact-1", "sets": {"a": {"n": 3, "mIoU": 0.5, "by_kind": {}}, "b": {"n": 2}}}
    assert [line.split() for line in table(report).splitlines()] == [
        ["compact-1", "a", "b"],
        ["n", "3", "2"],
        ["mIoU", "0.500"],
    ]


def test_the_first_expression_of_an_image_is_not_averaged_with_those_that_find_its_boxes_known() -> None:
    def outcome(name: str, wall: float, embedded: float) -> Outcome:
        question = Question(LabelledImage(Path(name), 8, 8), LabelledExpression("the ship", ()))
        choice = Picked(answered=False, right=False, offered=False)
        return Outcome(question, None, False, None, 0, Spent(wall, 0.0), Spent(embedded, 0.0), choice)

    done = [outcome("a", 0.7, 0.5), outcome("a", 0.2, 0.02), outcome("a", 0.1, 0.04), outcome("b", 0.5, 0.4)]
    expected = {"first expression s": 0.6, "next expression s": 0.15, "embedded s": 0.03}
    assert seconds_rows(done) == pytest.approx(expected)
    assert seconds_rows(done[-1:]) == pytest.approx({"first expression s": 0.5})
    assert seconds_rows([]) == {}


def test_two_sets_side_by_side(tmp_path: Path) -> None:
    folders = []
    for seed in (3, 4):
        scenes = [synthetic.draw_scene(seed, width=320, height=240)]
        folders.append(synthetic.write(tmp_path / f"scene{seed}", scenes, split=(0.0, 0.0, 1.0)))
    rows = (folders[0] / "expressions.jsonl").read_text().splitlines()
    (folders[0] / "vehicles.jsonl").write_text(next(row for row in rows if json.loads(row)["ann_ids"]) + "\n")
    words = ["--data", *map(str, folders), "--rows", "expressions", "kinds", "--limit", "3", "--threads", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.domains", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    report = json.loads(done.stdout)
    assert report["config"] == "compact"
    assert list(report["sets"]) == ["scene3", "scene4"]
    assert all(0 <= rows["end to end mIoU"] <= 1 for rows in report["sets"].values())
    assert report["sets"]["scene3"]["kinds n"] == 1
    assert "kinds n" not in report["sets"]["scene4"]
