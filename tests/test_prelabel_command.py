"""``pslg prelabel``: masks, abstentions and mistakes, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image as PillowImage

from backend.commands.prelabel import prelabel
from backend.errors import ConfigError, ImageError
from dataset_tools.masks import from_coco
from dataset_tools.metrics import iou
from dataset_tools.synthetic import Scene, draw_scene

SIZE = (320, 400)  # height, width


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_scene(5, width=SIZE[1], height=SIZE[0])


@pytest.fixture(scope="module")
def image(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "scene.png"
    PillowImage.fromarray(scene.image).save(path)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(prelabel, arguments, catch_exceptions=False)


def test_json_holds_masks_that_decode_at_the_image_s_size(scene: Scene, image: Path) -> None:
    category = scene.objects[0].category
    done = run(str(image), f"all the {category}s", "--json")
    answer = json.loads(done.stdout)
    if answer["abstained"] is not None:
        assert done.exit_code == 3
        pytest.skip(f"the shipped weights abstain on this scene: {answer['abstained']['message']}")
    assert done.exit_code == 0
    union = np.zeros(SIZE, np.bool_)
    for item in answer["prelabels"]:
        mask = from_coco(item["mask"], *SIZE)
        assert mask.any()
        assert 0 <= item["score"] <= 1
        assert set(item["scores"]) >= {"grounding", "predicted_iou", "stability"}
        union |= mask
    truth = np.any([item.mask for item in scene.objects if item.category == category], axis=0)
    assert iou(union, truth) > 0.3  # found in the right place; quality is measured by `pslg evaluate`


def test_an_abstention_says_why_and_exits_with_three(image: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "out" / "overlay.jpg"
    done = run(str(image), "the windmill", "--out", str(overlay))
    assert done.exit_code == 3
    assert "unknown-category" in done.stdout
    assert "windmill" in done.stdout
    with PillowImage.open(overlay) as picture:
        assert picture.format == "JPEG"


def test_stages_can_be_switched_off(scene: Scene, image: Path) -> None:
    full, bare = (
        json.loads(run(str(image), "the leftmost " + scene.objects[0].category, "--json", *options).stdout)
        for options in ((), ("--no-foreground-points", "--no-boundary"))
    )
    assert full["model_version"] != bare["model_version"]
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
