from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from backend.commands.evaluate_clicks import evaluate_clicks
from dataset_tools.errors import DatasetError


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """Two images with one bright disc each."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for index, (x, y, radius) in enumerate(((90, 80, 30), (140, 110, 45)), start=1):
        image = np.full((220, 260, 3), (70, 100, 80), np.uint8)
        cv2.circle(image, (x, y), radius, (225, 225, 220), -1)
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image)
        images.append({"id": index, "file_name": f"{index}.png", "width": 260, "height": 220})
        angles = np.linspace(0, 2 * np.pi, 60)
        polygon = np.stack([x + 0.5 + radius * np.cos(angles), y + 0.5 + radius * np.sin(angles)], axis=1)
        annotations.append(
            {
                "id": index,
                "image_id": index,
                "category_id": 1,
                "segmentation": [polygon.flatten().tolist()],
                "bbox": [x - radius, y - radius, 2 * radius, 2 * radius],
                "area": 3.14 * radius**2,
                "iscrowd": 0,
            }
        )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "storage_tank"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "split.json").write_text(json.dumps({"train": ["1.png"], "test": ["2.png"]}))
    return tmp_path


def test_one_json_object_with_the_contract_keys(discs: Path) -> None:
    result = CliRunner().invoke(evaluate_clicks, ["--data", str(discs), "--split", "test", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["n"] == 1
    assert 1 <= report["NoC@0.80"] <= report["NoC@0.85"] <= 20
    assert {"failed@0.80", "failed@0.85", "seconds", "model_version", "convention"} <= set(report)
    assert set(report["by_category"]) == {"storagetank"}


def test_a_table_without_json_and_a_limit(discs: Path) -> None:
    result = CliRunner().invoke(evaluate_clicks, ["--data", str(discs), "--limit", "1", "--cap", "2"])
    assert result.exit_code == 0, result.output
    assert "all objects" in result.stdout
    assert "storagetank" in result.stdout


def test_a_folder_without_objects_is_explained(discs: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(evaluate_clicks, ["--data", str(discs), "--split", "tset"])
    assert isinstance(result.exception, DatasetError)
    assert "tset" in str(result.exception)
    result = CliRunner().invoke(evaluate_clicks, ["--data", str(tmp_path / "nowhere")])
    assert isinstance(result.exception, DatasetError)
