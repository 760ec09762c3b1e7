"""What `pslg dataset tile` says of files that are not what it would like: one clear word each, nothing half-written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from dataset_tools.cli import dataset as dataset_command
from dataset_tools.maps import tiles
from tests.dataset_tools.maps.geotiffs import UTM, noise, write

Make = Callable[[Path], object]


def tile(path: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(dataset_command, ["tile", str(path), "--out", str(out), "--side", "128", *arguments])


def half(path: Path) -> None:
    content = write(path, noise(3, 300, 300), UTM, compress="deflate").read_bytes()
    path.write_bytes(content[: len(content) // 3])


def masked(path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, noise())
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.arange(130 * 200).reshape(130, 200) % 200 >= 50)


def palette(path: Path) -> None:
    write(path, noise(1) % 4, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {number: (60 * number, 200, 0, 255) for number in range(4)})


COLORS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
REFUSED: dict[str, tuple[Make, str]] = {
    "0 bytes": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "cut off": (half, "cut off"),
    "no picture": (lambda path: path.write_text("no picture"), "cannot be read"),
    "not there": (lambda _path: None, "does not exist"),
    "broken transform": (
        lambda path: write(path, noise(), ("EPSG:32633", Affine(0.5, 0, 1, 0, 0, 1))),
        "repair its georeference",
    ),
    "complex numbers": (lambda path: write(path, noise().astype(np.complex64)), "complex numbers"),
}
TAKEN: dict[str, tuple[Make, str]] = {
    "no CRS": (lambda path: write(path, noise(), (None, UTM[1])), "no coordinate reference system"),
    "no georeference": (lambda path: write(path, noise(), (None, None)), "no georeference"),
    "12 bands of 16 bits": (
        lambda path: write(path, noise(12, kind=np.uint16, top=9000)),
        "choose others with --bands, e.g. --bands 12,11,10",
    ),
    "float with holes": (
        lambda path: write(path, np.where(noise() > 250, np.nan, noise()).astype(np.float32)),
        "float32 values from",
    ),
    "transparency that is none": (lambda path: write(path, noise(4), colors=COLORS), "taken for a band"),
    "palette": (palette, ""),
    "1 bit": (lambda path: write(path, noise(1) % 2, nbits=1), ""),
    "JPEG in TIFF": (lambda path: write(path, noise(), compress="jpeg", photometric="ycbcr"), ""),
    "internal mask": (masked, ""),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_leaves_nothing(tmp_path: Path, what: str) -> None:
    make, message = REFUSED[what]
    make(tmp_path / "scene.tif")
    done = tile(tmp_path / "scene.tif", tmp_path / "out")
    assert done.exit_code == 2
    assert f"left out: {tmp_path / 'scene.tif'}" in done.output
    assert message in done.output
    left = sorted(path.name for path in (tmp_path / "out").glob("*"))
    # A file that is cut off gives the tiles before the cut, whole ones, and no other.
    assert set(left) - {tiles.INDEX} == set(tiles.read_index(tmp_path / "out"))
    assert what == "cut off" or not tiles.read_index(tmp_path / "out")


@pytest.mark.parametrize("what", TAKEN)
def test_what_is_unusual_is_read_and_said(tmp_path: Path, what: str) -> None:
    make, message = TAKEN[what]
    make(tmp_path / "scene.tif")
    done = tile(tmp_path / "scene.tif", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert message in done.output
    assert message or done.output.count("\n") == 1
    assert len(tiles.read_index(tmp_path / "out")) == 6


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"")
    good = write(tmp_path / "good.tif", noise())
    command = ["tile", str(tmp_path / "bad.tif"), str(good), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(dataset_command, command)
    assert done.exit_code == 2
    assert {line["scene"] for line in tiles.read_index(tmp_path / "out").values()} == {"good"}


def test_without_the_extra_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "scene.tif", noise())
    monkeypatch.setitem(sys.modules, "rasterio", None)
    done = tile(path, tmp_path / "out")
    assert "pip install 'pslg-sam[geo]'" in done.output
