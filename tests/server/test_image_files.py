"""Every kind of image file a task may name becomes the RGB picture that the annotator sees."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from backend.server.image_files import decode_image
from dataset_tools.errors import ImageError
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
    inverse = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = quarters() if inverse is None else quarters().transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = decode_image(encode(stored, kind, exif=exif.tobytes(), quality=95), LIMIT)
    assert seen.shape == (20, 40, 3)
    assert np.abs(seen.astype(int) - np.asarray(quarters()).astype(int)).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = {"CMYK": "JPEG", "F": "TIFF", "I": "TIFF"}.get(mode, "PNG")
    gray = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (8, 1))
    image = Image.fromarray(gray)
    if mode in ("I;16", "I"):
        image = (
            Image.fromarray(gray.astype(np.uint16) * 257).convert(mode)
            if mode == "I"
            else Image.fromarray(gray.astype(np.uint16) * 257)
        )
    else:
        image = image.convert("RGB").convert(mode) if mode == "CMYK" else image.convert(mode)
    seen = decode_image(encode(image, kind), LIMIT)
    assert seen.dtype == np.uint8
    assert seen.shape == (8, 32, 3)
    assert seen[:, 0].max() < 40
    assert seen[:, -1].min() > 215


def test_transparent_parts_are_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 2, 4))
    seen = decode_image(encode(image), LIMIT)
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert seen[0, 3].tolist() == [255, 0, 0]


def test_one_pixel() -> None:
    assert decode_image(encode(Image.new("RGB", (1, 1), "red")), LIMIT).tolist() == [[[255, 0, 0]]]


def huge_png_header() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("limit", [LIMIT, 89_000_000])
def test_a_huge_image_is_refused_by_its_header(limit: int) -> None:
    with pytest.raises(ImageError, match=r"large|20000 x 20000"):
        decode_image(huge_png_header(), limit)


def test_an_image_just_above_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(ImageError, match=r"80 x 60.*PSLG_IMAGE_PIXELS"):
        decode_image(png(80, 60), 80 * 60 - 1)


@pytest.mark.parametrize("data", [b"", b"<html>log in</html>", png()[:200], png()[:-30], b"\xff\xd8\xff\xe0junk"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(data, LIMIT)
