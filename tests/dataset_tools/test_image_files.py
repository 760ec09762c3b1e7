"""How a picture is read, what is said about it, what is refused; what each kind gives stands in test_pictures."""

from __future__ import annotations

import contextlib
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset_tools import image_files
from dataset_tools.errors import ImageError
from dataset_tools.image_files import decode
from tests.pictures import CASES, INVERSE, scene, tiff
from tests.server.conftest import encode, png

LIMIT = 10_000_000


def quarters() -> Image.Image:
    """40 x 20: red, green over blue, white, so that every orientation looks different."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("lime", (20, 0, 40, 10))
    image.paste("blue", (0, 10, 20, 20))
    image.paste("white", (20, 10, 40, 20))
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied_exactly_once(orientation: int, kind: str) -> None:
    inverse = INVERSE[orientation - 1]
    stored = quarters() if inverse is None else quarters().transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = decode(encode(stored, kind, exif=exif.tobytes(), quality=95))
    assert seen.shape == (20, 40, 3)
    assert np.abs(seen.astype(int) - np.asarray(quarters()).astype(int)).mean() < 12


def test_one_pixel() -> None:
    assert decode(encode(Image.new("RGB", (1, 1), "red"))).tolist() == [[[255, 0, 0]]]


def huge_png_header() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("limit", [LIMIT, 89_000_000])
def test_a_huge_image_is_refused_by_its_header(limit: int) -> None:
    with pytest.raises(ImageError, match=r"large|20000 x 20000"):
        decode(huge_png_header(), max_pixels=limit)


def test_an_image_just_above_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(ImageError, match=r"80 x 60.*PSLG_IMAGE_PIXELS"):
        decode(png(80, 60), max_pixels=80 * 60 - 1, limit="PSLG_IMAGE_PIXELS")


@pytest.mark.parametrize("data", [b"", b"<html>log in</html>", png()[:200], png()[:-30], b"\xff\xd8\xff\xe0junk"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


@pytest.mark.parametrize("kind", ["uint16", "float32", "uint8"])
def test_damaged_tiff_files_are_refused(kind: str) -> None:
    data = tiff(scene(5).astype(kind), planarconfig="contig", compression="zlib")
    assert decode(data).shape == (32, 44, 3)
    for end in (9, 60, len(data) // 2, len(data) - 40):
        with pytest.raises(ImageError, match=r"damaged|truncated"):
            decode(data[:end])
    rng = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(data)
        for place in rng.integers(4, min(400, len(data)), 3):
            changed[place] = rng.integers(256)
        with contextlib.suppress(ImageError):
            assert decode(bytes(changed), max_pixels=100_000).dtype == np.uint8


def test_a_tiff_file_of_huge_tiles_or_countless_bands_is_refused() -> None:
    with pytest.raises(ImageError, match=r"7 bands of float64 take .* bytes, more than 16"):
        decode(tiff(np.zeros((32, 44, 7)), planarconfig="contig"), max_pixels=32 * 44)
    with pytest.raises(ImageError, match=r"tiles of 32768 x 16384"):
        decode(_retagged_tiles(tiff(scene(4).astype(np.uint16), planarconfig="contig", tile=(16, 16))))


def _retagged_tiles(data: bytes) -> bytes:
    """The same file, said to have tiles of 32768 x 16384 pixels."""
    for tag, side in ((322, 32768), (323, 16384)):
        place = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
        data = data[:place] + struct.pack("<I", side) + data[place + 4 :]
    return data


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "PostScript"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_other_kinds_are_named_with_what_to_run(data: bytes, word: str) -> None:
    with pytest.raises(ImageError, match=rf"{word}.*gdal_translate"):
        decode(data)


def test_no_picture_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ImageError):
        decode(encode(Image.new("RGB", (9, 9)), "EPS"))
    assert not ran.exists()


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "away.png", tmp_path):
        with pytest.raises(ImageError, match=str(path)):
            image_files.read(path)


@pytest.mark.parametrize("value", [0, 700, 65535])
def test_a_deep_picture_of_one_value_is_middle_gray(value: int) -> None:
    assert (decode(tiff(np.full((8, 8), value, np.uint16))) == 128).all()


def test_a_deep_picture_of_few_bright_points_is_not_one_gray() -> None:
    values = np.zeros((40, 40), np.uint16)
    values[3, 4] = 900
    seen = decode(tiff(values))
    assert (seen[3, 4].tolist(), seen[0, 0].tolist()) == ([255] * 3, [0] * 3)


def test_a_picture_without_any_value_is_white() -> None:
    assert (decode(tiff(np.full((8, 8), np.nan, np.float32))) == 255).all()


def said(caplog: pytest.LogCaptureFixture, data: bytes, **options: Any) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        decode(data, **options)
    return caplog.text


def test_what_a_viewer_would_not_guess_is_said(caplog: pytest.LogCaptureFixture) -> None:
    case = {path.stem: path.read_bytes() for path in CASES.glob("*.tif")}
    assert "uint16 values, 120 to 1648: stretched to 8 bits" in said(caplog, case["eleven_bit_in_16"])
    assert "4 bands: the first three are shown" in said(caplog, case["four_bands_minisblack"])
    assert "--bands or PSLG_BANDS" in caplog.text
    assert "band 4 is tagged as transparency, but" in said(caplog, case["nir_as_alpha"])
    assert "all are equal" in said(caplog, tiff(np.zeros((8, 8), np.uint16)))
    assert said(caplog, png()) == ""


def test_a_file_is_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    data = (CASES / "eleven_bit_in_16.tif").read_bytes()
    name = "folder of this test/only here.tif"
    assert "only here.tif: uint16" in said(caplog, data, name=name)
    assert said(caplog, data, name=name) == ""


def test_other_bands_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    values = scene(5)
    data = tiff(values, planarconfig="contig")
    assert np.array_equal(decode(data, bands=(5, 3, 1)), values[:, :, [4, 2, 0]])
    monkeypatch.setenv("PSLG_BANDS", "4,3,2")
    assert np.array_equal(decode(data), values[:, :, [3, 2, 1]])
    assert np.array_equal(decode(data, bands=(1, 2, 3)), values[:, :, :3])
    assert np.array_equal(decode(encode(Image.fromarray(scene()))), scene())  # three bands stay in their order
    with pytest.raises(ImageError, match="5 bands; 6,1,1"):
        decode(data, bands=(6, 1, 1))
    monkeypatch.setenv("PSLG_BANDS", "red,green,blue")
    with pytest.raises(ImageError, match=r"PSLG_BANDS: 'red,green,blue'"):
        decode(data)


def test_pictures_may_be_written_to() -> None:
    for data in (png(), *(path.read_bytes() for path in CASES.glob("*.tif"))):
        assert decode(data).flags.writeable
