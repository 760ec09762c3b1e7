"""The table of "more like this": what is drawn, what is taken away, and the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner

from benchmarks.exemplars import WORD, Draw, main
from dataset_tools import synthetic
from dataset_tools.labelled import LabelledImage, read


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = (synthetic.draw_scene(seed, 320, 240, theme="airport") for seed in range(30))
    scenes = [scene for scene in drawn if any(item.category == "airplane" for item in scene.objects)][:6]
    return synthetic.write(tmp_path_factory.mktemp("scenes"), scenes, split=(1.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def images(data: Path) -> list[LabelledImage]:
    return read(data, "train")


def test_what_is_shown_is_never_asked(images: list[LabelledImage]) -> None:
    draws = [Draw.of(images, images, "airplane", seed, 2, 5) for seed in range(3)]
    for draw in draws:
        asked = {question.image.path for question in draw.asked}
        assert asked
        assert asked <= {image.path for image in draw.unseen}
        assert not {image.path for image in draw.shown} & {image.path for image in draw.unseen}
        assert all(WORD in question.expression.text for question in draw.asked)
    assert len({tuple(image.path for image in draw.unseen) for draw in draws}) > 1
    apart = Draw.of(images[:3], images[3:], "airplane", 0, 2, 5)
    assert {image.path for image in apart.shown} <= {image.path for image in images[3:]}


def test_the_table_and_its_pictures_of_a_category_that_the_heat_never_saw(data: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ["--data", str(data), "--categories", "airplane", "--objects", "1,2", "--seeds", "1", "--images", "2"]
    done = CliRunner().invoke(main, [*words, "--expressions", "3", "--unseen", "--gallery", str(sheet), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert [row["objects"] for row in rows] == [1, 2]
    assert all(row["n"] > 0 and row["accepted"] == row["objects"] for row in rows)
    assert all(0 <= row["P@0.5"] <= 1 and row["found"] <= 10 for row in rows)
    picture = cv2.imread(str(sheet))
    assert picture is not None
    assert picture.shape[1] > 2 * 420, "a column for each number of objects"
