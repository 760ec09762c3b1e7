"""docs/maps.md: its commands do what it says, in its order, on a drawn scene."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from click.testing import CliRunner

from backend.cli import pslg
from dataset_tools import brush_rle, synthetic
from dataset_tools.maps import tiles
from tests.conftest import REPOSITORY
from tests.dataset_tools.maps.geotiffs import UTM, write

PAGE = (REPOSITORY / "docs" / "maps.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    pslg ")]


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = [synthetic.draw_scene(900 + number, 700, 600, "airport") for number in range(2)]
    image = np.concatenate([scene.image for scene in scenes], axis=1)
    write(tmp_path / "airport.tif", image.transpose(2, 0, 1), UTM)
    planes = []
    for number, scene in enumerate(scenes):
        for item in scene.objects:
            if item.category == "airplane":
                mask = np.zeros(image.shape[:2], bool)
                mask[:, 700 * number : 700 * (number + 1)] = item.mask
                planes.append(mask)
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        if "export.json" in command and not Path("export.json").exists():
            labelled(planes)
        result = CliRunner().invoke(pslg, shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert pyogrio.read_info("airplanes.gpkg")["features"] >= len(planes) - 2
    assert len(json.loads(Path("northernmost.geojson").read_text())["features"]) == 1
    assert pyogrio.read_info("accepted.gpkg")["features"] == len(planes)
    with rasterio.open("labels.tif") as raster:
        assert np.array_equal(raster.read(1) > 0, np.any(planes, axis=0))


def labelled(planes: list[np.ndarray]) -> None:  # type: ignore[type-arg]
    """An export of a project in which somebody painted every airplane of every tile."""
    tasks = []
    for number, (name, line) in enumerate(tiles.read_index(Path("tiles")).items(), 1):
        x, y, w, h = line["window"]
        results: list[dict[str, object]] = []
        for mask in planes:
            part = np.ascontiguousarray(mask[y : y + h, x : x + w])
            if part.any():
                value = {"format": "rle", "rle": brush_rle.encode(part), "brushlabels": ["airplane"]}
                results.append(
                    {
                        "id": f"r{len(results)}", "type": "brushlabels", "from_name": "mask", "to_name": "image",
                        "original_width": w, "original_height": h, "image_rotation": 0, "value": value,
                    }
                )  # fmt: skip
        data = {"image": f"/data/upload/1/0123abcd-{name}", "expression": "all the airplanes"}
        tasks.append({"id": number, "data": data, "annotations": [{"id": number, "result": results}]})
    Path("export.json").write_text(json.dumps(tasks))
