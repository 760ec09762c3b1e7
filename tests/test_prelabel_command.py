"""``pslg prelabel``: masks, abstentions and mistakes, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image as PillowImage

from backend.commands.prelabel import prelabel
from dataset_tools import brush_rle
from dataset_tools.errors import ConfigError, ImageError, PslgError
from dataset_tools.label_studio.notes import answered
from dataset_tools.masks import from_coco
from dataset_tools.metrics import iou
from dataset_tools.synthetic import Scene, draw_scene
from tests.server.conftest import make_site

SIZE = (320, 400)  # height, width
CATEGORY = "building"
"""Of the scene's four large buildings each is found with a score of 0.9 and more: far from any threshold."""


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_scene(3, width=SIZE[1], height=SIZE[0])


@pytest.fixture(scope="module")
def image(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "scene.png"
    PillowImage.fromarray(scene.image).save(path)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(prelabel, arguments, catch_exceptions=False)


def test_json_holds_masks_that_decode_at_the_image_s_size(scene: Scene, image: Path) -> None:
    done = run(str(image), f"all the {CATEGORY}s", "--json")
    answer = json.loads(done.stdout)
    assert answer["abstained"] is None
    assert done.exit_code == 0
    union = np.zeros(SIZE, np.bool_)
    for item in answer["prelabels"]:
        mask = from_coco(item["mask"], *SIZE)
        assert mask.any()
        assert 0 <= item["score"] <= 1
        assert set(item["scores"]) >= {"grounding", "predicted_iou", "stability"}
        union |= mask
    truth = np.any([item.mask for item in scene.objects if item.category == CATEGORY], axis=0)
    assert iou(union, truth) > 0.7  # 0.97 with the weights of the day; quality is measured by `pslg evaluate`


def test_an_abstention_says_why_and_exits_with_three(image: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "out" / "overlay.jpg"
    done = run(str(image), "the windmill", "--out", str(overlay))
    assert done.exit_code == 3
    assert "unknown-category" in done.stdout
    assert "windmill" in done.stdout
    with PillowImage.open(overlay) as picture:
        assert picture.format == "JPEG"


def test_stages_can_be_switched_off(image: Path) -> None:
    full, bare = (
        json.loads(run(str(image), "the leftmost " + CATEGORY, "--json", *options).stdout)
        for options in ((), ("--no-foreground-points", "--no-boundary"))
    )
    assert full["model_version"] != bare["model_version"]
    assert bare["prelabels"]
    for item in bare["prelabels"]:
        assert item["point"] is None
        assert "boundary_agreement" not in item["scores"]


def test_mistakes_are_named_before_any_model_is_loaded(image: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        run("nowhere.png", "the ship")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.png"):
        run(str(tmp_path / "text.png"), "the ship")
    with pytest.raises(ConfigError, match="compct"):
        run(str(image), "the ship", "--config", "compct")
    done = run(str(image), "the ship", "--out", str(tmp_path / "overlay.gif"))
    assert done.exit_code == 2
    assert ".png" in done.output


def test_a_file_of_tasks_becomes_importable_predictions(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSLG_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PSLG_IMAGE_HOSTS", "127.0.0.1")
    sites = make_site()
    site = next(sites)
    url = site.put("/scene.png", image.read_bytes())
    rows: list[dict[str, Any]] = [
        {"id": 7, "data": {"image": url, "expression": f"the leftmost {CATEGORY}"}},
        {"data": {"image": url, "expression": "the windmill"}},
        {"id": 9, "data": {"image": site.url + "/missing.png", "expression": "the ship"}},
        {"id": 10, "data": {"image": "http://[bad/x.png", "expression": "the ship"}},
    ]
    source = tmp_path / "tasks.json"
    out = tmp_path / "predictions.json"
    arguments = ("--tasks", str(source), "--out", str(out), "--labeling-config", "rrsisd")
    try:
        source.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows[:1]).encode())
        said = run(*arguments, "--predictions-only").output
        assert "POST predictions.json to /api/projects/<id>/import/predictions" in said
        (only,) = json.loads(out.read_text())
        assert (only["task"], set(only)) == (7, {"task", "result", "score", "model_version"})
        assert "importing predictions.json there adds them a second time" in run(*arguments).output
        source.write_text(json.dumps(rows))
        with pytest.raises(
            PslgError, match=r"2 of 4 tasks failed:\ntask 9[^\n]*\ntask 10: .*no address that can be read"
        ):
            run(*arguments)
    finally:
        next(sites, None)
    done = json.loads(out.read_text())
    assert [row.get("id") for row in done] == [7, None]
    assert done[0]["data"] == rows[0]["data"]
    (prediction,) = done[0]["predictions"]
    assert prediction["model_version"].startswith("compact-")
    assert prediction["result"]
    for region in prediction["result"]:
        assert region["type"] == "brushlabels"
        assert brush_rle.decode(region["value"]["rle"], *SIZE).any()
    assert answered(done[1]["predictions"][0]["result"]) == []


def test_predictions_alone_need_tasks_of_a_project(tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text(json.dumps([{"data": {"image": "a.png"}}]))
    arguments = ("--tasks", str(tmp_path / "tasks.json"), "--out", str(tmp_path / "out.json"), "--predictions-only")
    with pytest.raises(PslgError, match=r"1 of the 1 tasks in .* have no 'id'"):
        run(*arguments)


@pytest.mark.parametrize("arguments", [(), ("a.png",), ("--tasks", "{file}"), ("a.png", "ship", "--tasks", "{file}")])
def test_either_an_image_or_tasks(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text("[]")
    done = run(*(argument.format(file=tmp_path / "tasks.json") for argument in arguments))
    assert done.exit_code == 2
    assert "--tasks" in done.output
