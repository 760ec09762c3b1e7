"""Tiles: they cover the image, keep its pixels, and know where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset_tools.commands.inspect import tile_command
from dataset_tools.errors import DatasetError
from dataset_tools.maps import tiles
from tests.dataset_tools.maps.geotiffs import MERCATOR, noise, write
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


def test_map_files_keep_place_bands_and_stretch(tmp_path: Path) -> None:
    path = write(tmp_path / "city.tif", noise(4, top=4000, kind=np.uint16))
    said: list[str] = []
    tiles.tile(path, tmp_path / "out", 64, 8, bands=(4, 3, 2), note=said.append)
    found = lines(tmp_path / "out")
    assert len({str(line["stretch"]) for line in found}) == 1
    assert {(line["crs"], str(line["bands"]), str(line["scene_size"])) for line in found} == {
        ("EPSG:32633", "[4, 3, 2]", "[200, 130]")
    }
    for line in found:
        x, y, _, _ = line["window"]
        assert line["transform"][2::3] == [500_000 + 0.5 * x, 4_000_000 - 0.5 * y]
    assert any("values from" in sentence for sentence in said)


def test_holes_are_transparent_and_empty_tiles_left_out(tmp_path: Path) -> None:
    values = noise()
    values[:, :, :90] = 0
    made = tiles.tile(write(tmp_path / "a.tif", values, nodata=0), tmp_path / "out", 65, 0)
    columns = {line["window"][0] for line in lines(tmp_path / "out")}
    assert 0 not in columns
    half = np.asarray(Image.open(next(path for path in made if path.name == f"a_{min(columns)}_0.png")))
    assert half.shape == (65, 65, 4)
    assert set(np.unique(half[..., 3])) == {0, 255}


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise())

    class Killed(BaseException):
        pass

    def until_the_fifth(places: Sequence[tuple[int, int, int, int]]) -> Iterator[tuple[int, int, int, int]]:
        yield from places[:5]
        raise Killed

    with pytest.raises(Killed):
        tiles.tile(path, tmp_path / "out", 64, 8, track=until_the_fifth)
    with (tmp_path / "out" / "tiles.jsonl").open("a") as file:
        file.write('{"file_name": "a_1')  # what a kill in the middle of a line leaves
    first = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.png")}
    assert len(first) == 5
    made = tiles.tile(path, tmp_path / "out", 64, 8)
    assert len(made) == len(lines(tmp_path / "out")) == 12
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == when for name, when in first.items())


def test_two_scenes_of_one_name_do_not_mix(tmp_path: Path) -> None:
    tiles.tile(write(tmp_path / "a.tif", noise()), tmp_path / "out", 64, 8)
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other" / "a.tif", noise(), MERCATOR)
    with pytest.raises(DatasetError, match="another scene called a"):
        tiles.tile(other, tmp_path / "out", 64, 8)


def test_mistakes_are_explained(tmp_path: Path) -> None:
    source = picture(tmp_path)
    with pytest.raises(DatasetError, match="overlap"):
        tiles.tile(source, tmp_path / "out", 64, 64)
    (tmp_path / "city.pgw").write_text("0.5 north")
    with pytest.raises(DatasetError, match="six numbers"):
        tiles.tile(source, tmp_path / "out")


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
