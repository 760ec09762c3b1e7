"""Tiles: they cover the image, keep its pixels, and know where they come from."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from dataset_tools import tiles
from dataset_tools.commands.inspect import tile_command
from dataset_tools.errors import DatasetError, ImageError
from tests.pictures import scene, tiff


@given(st.integers(1, 900), st.integers(1, 900), st.integers(20, 300), st.integers(0, 19))
def test_windows_cover_everything_with_the_overlap_asked_for(width: int, height: int, side: int, overlap: int) -> None:
    covered = np.zeros((height, width), bool)
    found = list(tiles.windows(width, height, side, overlap))
    for x, y, w, h in found:
        assert (w, h) == (min(side, width), min(side, height))
        assert x + w <= width
        assert y + h <= height
        covered[y : y + h, x : x + w] = True
    assert covered.all()
    columns = sorted({x for x, _, _, _ in found})
    assert all(left + side - right >= overlap for left, right in pairwise(columns))


def picture(folder: Path, suffix: str = ".png") -> Path:
    values = np.random.default_rng(0).integers(0, 255, (130, 200, 3), np.uint8)
    Image.fromarray(values).save(folder / f"city{suffix}")
    return folder / f"city{suffix}"


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "tiles.jsonl").read_text().splitlines()]


def test_tiles_hold_the_pixels_of_their_windows(tmp_path: Path) -> None:
    source = picture(tmp_path)
    image = np.asarray(Image.open(source))
    made = tiles.tile(source, tmp_path / "out", 64, 8)
    assert len(made) == 3 * 4
    for line in lines(tmp_path / "out"):
        x, y, width, height = line["window"]
        tile = np.asarray(Image.open(tmp_path / "out" / str(line["file_name"])))
        assert np.array_equal(tile, image[y : y + height, x : x + width])
        assert line["scene"] == "city"
    tiles.tile(source, tmp_path / "out", 64, 8)
    assert len(lines(tmp_path / "out")) == 12  # once more changes nothing


def test_fill_around_a_scene_gives_no_tiles(tmp_path: Path) -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:] = np.arange(64, dtype=np.uint8)[None, :, None]
    Image.fromarray(image).save(tmp_path / "a.png")
    assert [path.name for path in tiles.tile(tmp_path / "a.png", tmp_path / "out", 64, 0)] == ["a_64_0.png"]


def test_world_file_gives_every_tile_its_transform(tmp_path: Path) -> None:
    source = picture(tmp_path)
    (tmp_path / "city.pgw").write_text("0.5\n0\n0\n-0.5\n1000.25\n1999.75\n")
    tiles.tile(source, tmp_path / "out", 100, 0)
    by_window = {tuple(line["window"]): line["transform"] for line in lines(tmp_path / "out")}
    assert by_window[(0, 0, 100, 100)] == [0.5, 0.0, 1000.0, 0.0, -0.5, 2000.0]
    assert by_window[(100, 30, 100, 100)] == [0.5, 0.0, 1050.0, 0.0, -0.5, 1985.0]


def test_geotiff_tags_give_crs_and_transform(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33550] = (2.0, 2.0, 0.0)
    tags[33922] = (0.0, 0.0, 0.0, 500000.0, 4000000.0, 0.0)
    tags[34735] = (1, 1, 0, 1, 3072, 0, 1, 32633)
    for tag, kind in ((33550, 12), (33922, 12), (34735, 3)):
        tags.tagtype[tag] = kind
    Image.new("RGB", (20, 10), (9, 9, 9)).save(tmp_path / "a.tif", tiffinfo=tags)
    found = tiles.georeference(tmp_path / "a.tif")
    assert found == tiles.Georeference("EPSG:32633", (2.0, 0.0, 500000.0, 0.0, -2.0, 4000000.0))
    assert found is not None
    assert found.shifted(5, 3).transform == (2.0, 0.0, 500010.0, 0.0, -2.0, 3999994.0)


def test_mistakes_are_explained(tmp_path: Path) -> None:
    source = picture(tmp_path)
    with pytest.raises(DatasetError, match="overlap"):
        tiles.tile(source, tmp_path / "out", 64, 64)
    (tmp_path / "city.pgw").write_text("0.5 north")
    with pytest.raises(DatasetError, match="six numbers"):
        tiles.tile(source, tmp_path / "out")
    (tmp_path / "b.tif").write_bytes(b"II*")
    with pytest.raises(ImageError, match=r"b\.tif: not an image"):
        tiles.tile(tmp_path / "b.tif", tmp_path / "out")


def test_a_georeferenced_file_of_many_bands_is_tiled_with_its_georeference(tmp_path: Path) -> None:
    values = scene(6)
    tags = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 1000.0, 2000.0, 0.0), True),
    ]
    (tmp_path / "bands.tif").write_bytes(tiff(values, planarconfig="contig", extratags=tags))
    assert len(tiles.tile(tmp_path / "bands.tif", tmp_path / "out")) == 1
    (line,) = lines(tmp_path / "out")
    assert line["transform"] == [0.5, 0.0, 1000.0, 0.0, -0.5, 2000.0]


def test_bands_are_chosen_by_an_option(tmp_path: Path) -> None:
    values = scene(6)
    (tmp_path / "bands.tif").write_bytes(tiff(values, planarconfig="contig"))
    command = [str(tmp_path / "bands.tif"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(tile_command, [*command, "--bands", "6,5,4"]).exit_code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "bands_0_0.png")), values[:, :, [5, 4, 3]])
    assert "PSLG_BANDS" not in os.environ
    done = CliRunner().invoke(tile_command, [*command, "--bands", "red"])
    assert done.exit_code == 2
    assert "'red' is not three bands" in done.output
