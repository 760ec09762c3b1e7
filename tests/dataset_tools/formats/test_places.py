"""Every format keeps where its images lie, and the way from a dataset to the map is open."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
from click.testing import CliRunner
from PIL import Image

from dataset_tools import formats
from dataset_tools.cli import dataset as dataset_command
from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from dataset_tools.formats import READ
from dataset_tools.records import Record, Sample, SourceImage, target_of

SIDE = 32


def samples(folder: Path) -> list[Sample]:
    """Two tiles of a scene, and a picture that lies nowhere."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:16, 8:24] = True
    found = []
    for number in range(3):
        path = folder / f"city_{number}.png"
        values = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(values).save(path)
        x = 20 * number
        place = {"window": [x, 0, SIDE, SIDE], "scene_size": [52, SIDE], "crs": "EPSG:32633",
                 "transform": [0.5, 0.0, 500_000.0 + x / 2, 0.0, -0.5, 4_000_000.0]}  # fmt: skip
        placed = number < 2
        image = SourceImage(path.name, SIDE, SIDE, str(path), "city" if placed else None, place if placed else {})
        found.append(Sample(image, (Record("the ship", "ship", (target_of(mask),), "train"),)))
    return found


@pytest.mark.parametrize(
    "name",
    [name for name in READ if (form := formats.FORMATS[name]).writer and form.masks and not form.renames],
)
def test_a_place_goes_through_every_format(tmp_path: Path, name: str) -> None:
    if name == "huggingface":
        pytest.importorskip("pyarrow")
    before = samples(tmp_path)
    export(before, tmp_path / "set", name)
    images = [sample.image for sample in formats.read(tmp_path / "set", name)]
    images.sort(key=lambda image: image.extra.get("window") or [SIDE**2])
    assert [dict(image.extra).get("transform") for image in images] == [
        sample.image.extra.get("transform") for sample in before
    ]
    assert [image.extra.get("window") for image in images] == [[0, 0, 32, 32], [20, 0, 32, 32], None]
    assert [image.cut_from for image in images[:2]] == ["city", "city"]
    assert images[2].extra.get("crs") is None
    done = CliRunner().invoke(
        dataset_command, ["export", str(tmp_path / "set"), str(tmp_path / "a.gpkg"), "--format", "gpkg"]
    )
    assert done.exit_code == 2  # for the picture that lies nowhere
    assert pyogrio.read_info(tmp_path / "a.gpkg")["crs"] == "EPSG:32633"
    assert pyogrio.read_info(tmp_path / "a.gpkg")["features"] == 2


def test_coco_rows_say_it_themselves(tmp_path: Path) -> None:
    export(samples(tmp_path), tmp_path / "set", "coco")
    (tmp_path / "set" / "tiles.jsonl").unlink()
    (file,) = (tmp_path / "set" / "annotations").glob("*.json")
    rows = json.loads(file.read_text())["images"]
    assert [row.get("crs") for row in rows] == ["EPSG:32633", "EPSG:32633", None]
    assert [bool(sample.image.extra) for sample in formats.read(tmp_path / "set", "coco")] == [True, True, False]


def test_without_places_there_is_no_sidecar_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    export(samples(tmp_path)[2:], tmp_path / "set", "masks")
    assert not (tmp_path / "set" / "tiles.jsonl").exists()
    (tmp_path / "set" / "tiles.jsonl").write_text("no tile\n{}\n")
    with pytest.raises(DatasetError, match="is no tile's line"):
        list(formats.read(tmp_path / "set", "masks"))
