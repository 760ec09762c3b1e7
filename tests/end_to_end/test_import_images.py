"""A folder of photos and one of tiles become tasks: ``pslg import-images`` in the real Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from backend.cli import pslg
from dataset_tools import brush_rle, metrics
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.downloads import Downloads, read_body
from dataset_tools.label_studio.notes import answered
from tests.end_to_end.conftest import StartBackend, Studio
from tests.end_to_end.projects import png
from tests.end_to_end.scenes import airplane_scene, building_scene

pytestmark = pytest.mark.timeout(1800)


def _tasks(studio: Studio, token: str, project: int) -> dict[str, dict[str, Any]]:
    """Tasks of a project by the file that they were made of."""
    rows = LabelStudio(studio.url, token).tasks(project)
    return {str(row["data"]["pslg_file"]).split()[0]: row for row in rows}


def _project(output: str) -> int:
    return int(output.split("/projects/")[1].split("/")[0])


def test_a_folder_of_photos_becomes_a_project_with_prelabels(
    studio: Studio, personal_access_token: str, start_backend: StartBackend, tmp_path: Path
) -> None:
    scene = airplane_scene()
    folder = tmp_path / "photos"
    (folder / "two words").mkdir(parents=True)
    (folder / "airport.png").write_bytes(png(scene.image))
    (folder / "two words" / "häuser (1).png").write_bytes(png(building_scene().image))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    (tmp_path / "words.csv").write_text("image,expression\nairport.png,all the airplanes\nairport.png,the windmill\n")
    backend = start_backend(personal_access_token)
    environment = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": personal_access_token}

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(pslg, ["import-images", str(folder), *arguments], env=environment)
        return done.exit_code, f"{done.output} {done.exception}"

    status, output = run(
        "--expressions", str(tmp_path / "words.csv"), "--new", "Photos", "--backend", backend.url
    )  # fmt: skip
    assert status == 2  # for the broken file
    assert "broken.jpg" in output
    assert "2 tasks made, 1 of them without an expression" in output
    project = _project(output)
    tasks = _tasks(studio, personal_access_token, project)
    assert sorted(tasks) == ["airport.png", "two"]
    assert tasks["airport.png"]["data"]["expression"] == ["all the airplanes", "the windmill"]
    assert tasks["two"]["data"]["expression"] == []

    studio.client.retrieve_predictions(project, [row["id"] for row in tasks.values()])
    stored = {item.task: item for item in studio.client.predictions(project)}
    height, width = scene.image.shape[:2]
    found = answered(stored[tasks["airport.png"]["id"]].result)
    masks = [brush_rle.decode(region["value"]["rle"], height, width) for region in found]
    truth = [item.mask for item in scene.objects if item.category == "airplane"]
    assert metrics.iou(np.logical_or.reduce(masks), np.logical_or.reduce(truth)) > 0.5
    assert answered(stored[tasks["two"]["id"]].result) == []

    # The same title again would be another project of one name; the project itself goes on.
    status, output = run("--new", "Photos")
    assert (status, f"--project {project}" in output) == (1, True)
    (folder / "later.png").write_bytes(png(airplane_scene().image[:300]))
    status, output = run("--project", str(project), "--expression", "the airplane")
    assert "1 tasks made; 2 images were there, 2 with other expressions" in output
    assert _tasks(studio, personal_access_token, project)["later.png"]["data"]["expression"] == ["the airplane"]


def test_a_folder_of_tiles_is_read_from_the_disk(studio: Studio, personal_access_token: str, tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="scenes need the extra geo")
    from tests.dataset_tools.maps.geotiffs import UTM, write

    scene = write(tmp_path / "airport.tif", airplane_scene().image.transpose(2, 0, 1), UTM)
    tiles = tmp_path / "tiles"
    environment = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": personal_access_token}

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(pslg, [*arguments], env=environment, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    run("dataset", "tile", str(scene), "--out", str(tiles), "--side", "512", "--overlap", "64")
    output = run(
        "import-images", str(tiles), "--new", "Tiles", "--labeling-config", "rrsisd",
        "--expression", "all the airplanes", "--expression", "the largest airplane",
        "--local-files", str(tmp_path.parent),
    )  # fmt: skip
    tasks = _tasks(studio, personal_access_token, _project(output))
    lines = [json.loads(line) for line in (tiles / "tiles.jsonl").read_text().splitlines()]
    assert sorted(tasks) == sorted(line["file_name"] for line in lines)
    client = LabelStudio(studio.url, personal_access_token)
    for line in lines:
        data = tasks[line["file_name"]]["data"]
        assert data["expression"] == ["all the airplanes", "the largest airplane"]
        assert data["scene"] == "airport"
        assert data["tile"]["transform"] == line["transform"]
        with Downloads(client).open(data["image"]) as response:
            body = read_body(response, 1 << 24, 60, "this test")
        assert body == (tiles / line["file_name"]).read_bytes()
