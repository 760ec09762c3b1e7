"""Predictions go to the map on request only, of tasks that nobody has annotated or skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
from click.testing import CliRunner, Result

from dataset_tools.cli import dataset as dataset_command
from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.notes import candidate
from dataset_tools.label_studio.shapes import written

SIDE = 40
OVERLAP = 20


def region(x0: int, x1: int, *meta: str, origin: str = "prediction") -> dict[str, Any]:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:20, x0:x1] = True
    (value,) = written(mask, "brushlabels")
    return {"id": f"r{x0}{len(meta)}", "type": "brushlabels", "from_name": "mask", "to_name": "image", "origin": origin,
            "original_width": SIDE, "original_height": SIDE, "image_rotation": 0,
            "value": {**value, "brushlabels": ["ship"]}, "meta": {"text": list(meta)}}  # fmt: skip


def prediction(number: int, version: str, *results: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "model_version": version, "score": 0.7, "created_at": f"2026-01-{number:02d}",
            "result": list(results)}  # fmt: skip


def task(number: int, predictions: list[Any], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """Task ``number`` of a row of tiles that overlap by half."""
    x = OVERLAP * number
    place = {"window": [x, 0, SIDE, SIDE], "scene_size": [200, SIDE], "crs": "EPSG:32633",
             "transform": [1.0, 0.0, 500_000.0 + x, 0.0, -1.0, 4_000_000.0]}  # fmt: skip
    data = {"image": f"/data/upload/1/0123abcd-s_{x}_0.png", "expression": "all the ships", "scene": "s", "tile": place}
    return {"id": number, "data": data, "predictions": predictions, "annotations": annotations}


NOTE = {"from_name": "pslg_note", "to_name": "image", "type": "textarea", "value": {"text": ["“x” (absent): no"]}}
TASKS = [
    # Accepted, cut by the tile's border: what task 1 predicts of it belongs to it.
    task(0, [prediction(1, "a-1", region(0, 4))], [{"id": 1, "result": [region(25, 40)]}]),
    task(1, [prediction(2, "a-1", region(0, 39)), prediction(3, "b-1", region(5, 22), NOTE,
                                                              region(30, 34, "expression: x", candidate(1, 2)))], []),
    task(4, [prediction(4, "a-1", region(3, 9))], []),
    task(6, [prediction(5, "b-1", region(3, 9))], [{"id": 2, "was_cancelled": True, "result": []}]),
    task(7, [prediction(6, "b-1")], []),
]  # fmt: skip


def export(folder: Path, *arguments: str) -> tuple[Result, list[dict[str, Any]]]:
    (folder / "export.json").write_text(json.dumps(TASKS))
    out = folder / "out.gpkg"
    command = ["export", str(folder / "export.json"), str(out), "--format", "gpkg", "--overwrite", *arguments]
    done = CliRunner().invoke(dataset_command, command)
    if not out.exists():
        return done, []
    meta, _, _, columns = pyogrio.raw.read(out)
    rows = [dict(zip(meta["fields"], row, strict=True)) for row in zip(*columns, strict=True)]
    return done, sorted(rows, key=lambda row: float(row["area_m2"]))


def test_accepted_objects_alone_without_being_asked(tmp_path: Path) -> None:
    done, rows = export(tmp_path)
    assert done.exit_code == 0, done.output
    assert [(row["origin"], round(row["area_m2"])) for row in rows] == [("prediction", 150)]


def test_the_newest_prediction_of_tasks_that_nobody_looked_at(tmp_path: Path) -> None:
    done, rows = export(tmp_path, "--predictions")
    assert done.exit_code == 0, done.output
    assert "2 objects from 3 masks, 1 of them predicted" in done.output
    assert [(row["origin"], row["model_version"], round(row["area_m2"])) for row in rows] == [
        ("predicted", "a-1", 60),
        ("prediction", None, 170),
    ]


def test_predictions_of_one_version(tmp_path: Path) -> None:
    done, rows = export(tmp_path, "--predictions", "--model-version", "b-1")
    assert done.exit_code == 0, done.output
    assert [(row["origin"], round(row["area_m2"])) for row in rows] == [("prediction", 170)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export.json", "out", "--predictions"], "go with --format gpkg"),
        (["export.json", "out.gpkg", "--format", "gpkg", "--model-version", "a"], "goes with --predictions"),
        (["folder", "out.gpkg", "--format", "gpkg", "--predictions"], "holds no predictions"),
    ],
)
def test_predictions_are_never_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("export.json").write_text(json.dumps(TASKS))
    done = CliRunner().invoke(dataset_command, ["export", *arguments])
    assert isinstance(done.exception, DatasetError)
    assert message in str(done.exception)


def test_predictions_without_results_are_named(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text(json.dumps([TASKS[0], task(1, [17, 18], [])]))
    command = ["export", str(tmp_path / "export.json"), str(tmp_path / "o.gpkg"), "--format", "gpkg", "--predictions"]
    done = CliRunner().invoke(dataset_command, command)
    assert done.exit_code == 2
    assert "task 1: its predictions are [17, 18]" in done.output
