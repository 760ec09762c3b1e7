"""Images of one piece of ground are one scene, whatever their files are called and whatever their coordinates are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from dataset_tools import sources
from dataset_tools.checks.validate import validate
from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from dataset_tools.maps.footprints import footprint, overlapping
from dataset_tools.records import Record, Sample, SourceImage, target_of
from tests.dataset_tools.maps.geotiffs import ROTATED, noise, write

SIDE = 100
EAST, NORTH = 500_000.0, 4_000_000.0


def image(name: str, x: float, y: float = 0.0, crs: str = "EPSG:32633", pixel: float = 1.0) -> SourceImage:
    """An image whose upper left corner lies ``x``, ``y`` metres east and south of a place in UTM zone 33."""
    extra = {"crs": crs, "transform": [pixel, 0.0, EAST + x, 0.0, -pixel, NORTH - y]}
    return SourceImage(name, SIDE, SIDE, None, None, extra)


def pairs(*images: SourceImage) -> list[tuple[str, str]]:
    found = [footprint(one) for one in images]
    return overlapping([one for one in found if one is not None])


def test_images_that_overlap_are_found_and_neighbours_are_not() -> None:
    a, b, c, d = image("a", 0), image("b", 100), image("c", 190), image("d", 0, 98)
    assert pairs(a, b, c, d) == [("a", "d"), ("b", "c")]
    # An edge that both files hold, as cutting along a grid leaves it, is no scene in common.
    assert pairs(a, image("e", 99)) == []


def test_tiles_of_one_scene_are_not_compared() -> None:
    x, y = (SourceImage(n, SIDE, SIDE, None, "city", image(n, 10 * k).extra) for k, n in enumerate("xy"))
    assert pairs(x, y) == []
    assert pairs(x, y, image("z", 105)) == [("y", "z")]


def test_other_coordinates_of_the_same_ground() -> None:
    from rasterio.warp import transform

    (longitude,), (latitude,) = transform("EPSG:32633", "EPSG:4326", [EAST + 50], [NORTH - 50])
    here = {"crs": "EPSG:4326", "transform": [1e-5, 0.0, longitude, 0.0, -1e-5, latitude]}
    away = {"crs": "EPSG:4326", "transform": [1e-5, 0.0, longitude + 0.01, 0.0, -1e-5, latitude]}
    same, other = (SourceImage(n, SIDE, SIDE, None, None, e) for n, e in (("same", here), ("other", away)))
    assert pairs(image("a", 0), same, other) == [("a", "same")]


def test_a_rotated_image_covers_only_what_it_shows() -> None:
    turn = ROTATED[1]
    diamond = SourceImage("r", SIDE, SIDE, None, None, {"crs": "EPSG:32633", "transform": list(turn)[:6]})
    right, top = turn * (SIDE, 0)[0:2], turn * (0, 0)
    assert right[1] > top[1]
    # In the bounding box of the turned image, beside the image itself.
    beside = {"crs": "EPSG:32633", "transform": [0.05, 0.0, top[0], 0.0, -0.05, right[1]]}
    assert pairs(diamond, SourceImage("beside", SIDE, SIDE, None, None, beside)) == []
    inside = {"crs": "EPSG:32633", "transform": [0.05, 0.0, right[0] - 5, 0.0, -0.05, right[1] - 5]}
    assert pairs(diamond, SourceImage("inside", SIDE, SIDE, None, None, inside)) == [("r", "inside")]


def test_the_place_is_read_from_a_geotiff_and_none_is_invented(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(3, SIDE, SIDE), ("EPSG:32633", Affine(1, 0, EAST + 50, 0, -1, NORTH)))
    assert pairs(SourceImage("a.tif", SIDE, SIDE, str(path)), image("b", 0)) == [("a.tif", "b")]
    plain = write(tmp_path / "plain.tif", noise(3, SIDE, SIDE), (None, None))
    assert footprint(SourceImage("plain.tif", SIDE, SIDE, str(plain))) is None
    assert footprint(SourceImage("w", SIDE, SIDE, None, None, {"crs": None, "transform": [1, 0, 0, 0, -1, 0]})) is None


def samples(count: int = 12) -> list[Sample]:
    """A row of images, each of which overlaps the next but for a gap in the middle."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:30, 10:30] = True
    return [
        Sample(image(f"{k:02d}.png", 90 * k + (500 if k >= count // 2 else 0)),
               (Record("the ship", "ship", (target_of(mask),)),))
        for k in range(count)
    ]  # fmt: skip


def test_splits_keep_what_shares_ground_together() -> None:
    found = samples()
    for seed in range(6):
        parts = sources.deal_splits(lambda: iter(found), shares={"train": 0.5, "test": 0.5}, seed=seed, look=False)
        halves = [{parts[sample.image.file_name] for sample in half} for half in (found[:6], found[6:])]
        assert [len(half) for half in halves] == [1, 1]


def test_without_the_extra_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapely", None)
    with pytest.raises(DatasetError, match=r"pip install 'pslg-sam\[geo\]'"):
        sources.deal_splits(lambda: iter(samples()), look=False)
    one_place = [samples()[0]]
    assert sources.deal_splits(lambda: iter(one_place), look=False)


def test_a_dataset_that_straddles_is_found(tmp_path: Path) -> None:
    from PIL import Image

    located = []
    for number, sample in enumerate(samples(4)):
        path = tmp_path / sample.image.file_name
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(path)
        extra = sample.image.extra
        located.append(
            Sample(SourceImage(path.name, SIDE, SIDE, str(path), None, extra), sample.records).with_split(
                "train" if number != 1 else "test"
            )
        )
    export(located, tmp_path / "set", "coco_jsonl")
    kept = json.loads((tmp_path / "set" / "annotations.json").read_text())["images"]
    assert [row["crs"] for row in kept] == ["EPSG:32633"] * 4
    findings = validate(tmp_path / "set", None, pixels=False).findings
    assert [finding.where for finding in findings if finding.code == "split-scene"] == ["00.png, 01.png"]
