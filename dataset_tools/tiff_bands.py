"""TIFF files as arrays of bands: deep values, more than three bands, and bands that only the tags explain.

libtiff (in Pillow) undoes the compression, numpy the predictors: a file's rows are handed to libtiff as 8-bit gray rows
of the same bytes, which it takes for any number of bands and any depth. No other library is needed for LZW.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from dataset_tools.errors import ImageError

__all__ = ["DAMAGE", "MAGIC", "Layout", "header", "is_premultiplied", "layout", "orientation", "read_bands", "tags"]

DAMAGE = (
    OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, OverflowError, ZeroDivisionError, EOFError,
    struct.error, Warning,
)  # fmt: skip
"""What Pillow raises of damaged files."""
MAGIC = (b"II*\0", b"MM\0*", b"II+\0")
"""What TIFF files begin with."""
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 317, 322, 323, 324, 325
_EXTRA, _SAMPLE_FORMAT, _NODATA = 338, 339, 42113
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNCOMPRESSED, _JPEG = 1, (6, 7, 33003, 33005, 34712, 34892, 50001)
_PREMULTIPLIED, _ALPHA = 1, 2
_LARGE_TILE = 4096 * 4096


@dataclass(frozen=True)
class Layout:
    """What the tags say of the values.

    Attributes:
        size: (height, width) as stored, before ``orientation``.
        bands: number of bands, transparency among them.
        dtype: of the values as stored, byte order included.
        alpha: index of the band tagged as transparency; None if there is none.
        premultiplied: the colours are multiplied by ``alpha`` already.
        inverted: the smallest value is white.
        nodata: GDAL's value for "nothing was measured here"; None if there is none.
        orientation: EXIF's number, 1 to 8.
    """

    size: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    alpha: int | None
    premultiplied: bool
    inverted: bool
    nodata: float | None
    orientation: int


def tags(data: bytes) -> dict[int, Any]:
    """The tags of the first picture of a TIFF file; raises ImageError if it is damaged."""
    try:
        return _directory(io.BytesIO(data))
    except DAMAGE as error:
        raise ImageError(f"the TIFF file is damaged or truncated ({error}); {len(data)} bytes were read") from error


def header(file: Any) -> dict[int, Any]:
    """The tags of the first picture of a TIFF file, without reading the file; none of other files and damaged ones.

    Args:
        file: a file object with ``read`` and ``seek`` that stands at its beginning.
    """
    try:
        return _directory(file)
    except DAMAGE:
        return {}


def _directory(file: Any) -> dict[int, Any]:
    start = file.read(16)
    if not start.startswith(MAGIC):
        return {}
    directory = TiffImagePlugin.ImageFileDirectory_v2(start[: 16 if start[2:3] == b"+" else 8])
    file.seek(directory.next)
    directory.load(file)
    return dict(directory)


def orientation(found: Mapping[int, Any]) -> int:
    """EXIF's number in a file's ``header``; 1 where it has none."""
    try:
        return _number(found, _ORIENTATION, 1)
    except DAMAGE:
        return 1


def is_premultiplied(found: Mapping[int, Any]) -> bool:
    """Whether the colours of a file with this ``header`` are multiplied by its transparency ("associated alpha")."""
    return _PREMULTIPLIED in _numbers(found, _EXTRA)


def layout(found: Mapping[int, Any]) -> Layout | None:
    """How to read a file by ``read_bands``; None for what Pillow reads as it is meant (8-bit gray, RGB, palettes, ...).

    Args:
        found: the file's ``tags``.
    """
    samples, photometric = _number(found, _SAMPLES, 1), _number(found, _PHOTOMETRIC, _BLACK_IS_ZERO)
    bits, formats = set(_numbers(found, _BITS, 1)), set(_numbers(found, _SAMPLE_FORMAT, 1))
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or len(bits) != 1 or len(formats) != 1:
        return None
    depth, kind = bits.pop(), {1: "u", 2: "i", 3: "f", 4: "u"}.get(formats.pop())
    if depth not in (8, 16, 32, 64) or kind is None or (kind == "f" and depth == 8):
        return None
    if _number(found, _COMPRESSION, _UNCOMPRESSED) in _JPEG or (depth == 8 and kind == "u" and samples in (1, 3)):
        return None
    colors = 3 if photometric == _RGB else 1
    extra = _numbers(found, _EXTRA)
    alpha = next((colors + i for i, value in enumerate(extra) if value in (_PREMULTIPLIED, _ALPHA)), None)
    if alpha is not None and alpha >= samples:
        alpha = None
    return Layout(
        size=(_number(found, _HEIGHT, 0), _number(found, _WIDTH, 0)),
        bands=samples,
        dtype=np.dtype(f"{kind}{depth // 8}"),
        alpha=alpha,
        premultiplied=alpha is not None and extra[alpha - colors] == _PREMULTIPLIED,
        inverted=photometric == _WHITE_IS_ZERO,
        nodata=_nodata(found),
        orientation=_number(found, _ORIENTATION, 1),
    )


def read_bands(data: bytes, found: Mapping[int, Any], how: Layout) -> npt.NDArray[Any]:
    """The values [height, width, bands] of the first picture, in ``how.dtype``, not turned.

    Args:
        data: the file.
        found: its ``tags``.
        how: its ``layout``; its size has been checked.

    Raises:
        ImageError: damaged, or of a compression that libtiff does not read.
    """
    separate = _number(found, _PLANAR, 1) == 2 and how.bands > 1
    try:
        if not separate:
            return _plane(data, found, how, 0, how.bands)
        planes = [_plane(data, found, how, band, 1) for band in range(how.bands)]
        return np.concatenate(planes, axis=2)
    except DAMAGE as error:
        kind = _number(found, _COMPRESSION, _UNCOMPRESSED)
        name = TiffImagePlugin.COMPRESSION_INFO.get(kind, f"number {kind}")
        raise ImageError(
            f"the TIFF file ({how.bands} bands of {how.dtype.name}, compression {name}) is damaged or of a kind that"
            f" is not read ({error}); `gdal_translate -co COMPRESS=DEFLATE IN.tif OUT.tif` writes one that is"
        ) from error


def _plane(data: bytes, found: Mapping[int, Any], how: Layout, number: int, samples: int) -> npt.NDArray[Any]:
    """Values [height, width, ``samples``] of the whole picture, or of one of its separate bands."""
    height, width = how.size
    tiled = _TILES in found
    step, tall = (_number(found, _TILE_WIDTH, 0), _number(found, _TILE_HEIGHT, 0)) if tiled else (width, 1)
    # Whole tiles: the predictors go over a tile's columns, those beyond the picture's edge too.
    rows, columns = -(-height // tall) * tall, -(-width // step) * step
    if rows * columns > 4 * height * width + _LARGE_TILE:
        raise ValueError(f"tiles of {step} x {tall} pixels in a picture of {width} x {height}")
    offsets = _numbers(found, _TILES if tiled else _STRIPS)
    sizes = _numbers(found, _TILE_BYTES if tiled else _STRIP_BYTES)
    if not sizes and not tiled:
        sizes = (len(data) - offsets[0],)
    count = len(offsets) if samples > 1 or how.bands == 1 else len(offsets) // how.bands
    part = slice(number * count, (number + 1) * count)
    pixel = samples * how.dtype.itemsize
    fields: dict[int, tuple[int, ...]] = {
        _WIDTH: (columns * pixel,),
        _HEIGHT: (rows,),
        _BITS: (8,),
        _COMPRESSION: (_number(found, _COMPRESSION, _UNCOMPRESSED),),
        _PHOTOMETRIC: (_BLACK_IS_ZERO,),
        _FILL_ORDER: (_number(found, _FILL_ORDER, 1),),
        (_TILES if tiled else _STRIPS): offsets[part],
        _SAMPLES: (1,),
        (_TILE_BYTES if tiled else _STRIP_BYTES): sizes[part],
    }
    if tiled:
        fields |= {_TILE_WIDTH: (step * pixel,), _TILE_HEIGHT: (tall,)}
    else:
        fields[_ROWS] = (min(_number(found, _ROWS, height), height),)
    with TiffImagePlugin.TiffImageFile(io.BytesIO(_retagged(data, fields))) as file:
        raw = np.asarray(file)
    stored = how.dtype.newbyteorder(">" if data[:2] == b"MM" else "<")
    values = _unpredicted(raw, _number(found, _PREDICTOR, 1), stored, columns // step, samples)
    return values[:height, :width]


def _retagged(data: bytes, fields: Mapping[int, tuple[int, ...]]) -> bytes:
    """The file with other tags (all of them unsigned 32-bit numbers), behind which the old ones stay as waste."""
    start = len(data) + len(data) % 2
    behind = start + 2 + 12 * len(fields) + 4
    entries, lists = b"", b""
    for tag, values in sorted(fields.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        place = packed if len(values) == 1 else struct.pack("<I", behind + len(lists))
        entries += struct.pack("<HHI", tag, 4, len(values)) + place
        lists += packed if len(values) > 1 else b""
    directory = struct.pack("<H", len(fields)) + entries + bytes(4) + lists
    return b"".join((b"II*\0", struct.pack("<I", start), memoryview(data)[8:], bytes(len(data) % 2), directory))


def _unpredicted(
    raw: npt.NDArray[np.uint8], predictor: int, dtype: np.dtype[Any], across: int, samples: int
) -> npt.NDArray[Any]:
    """Rows of bytes -> values [rows, columns, ``samples``]; ``across`` tiles lie beside each other.

    Predictors as TIFF 6.0 (section 14) and Adobe's technical note 3 define them.
    """
    rows, size = raw.shape[0], dtype.itemsize
    if predictor == 3:
        deltas = raw.reshape(rows, across, -1, samples)
        planes = np.cumsum(deltas, axis=2, dtype=np.uint8).reshape(rows, across, size, -1)
        values = np.ascontiguousarray(planes.swapaxes(2, 3)).view(f">f{size}")
    elif predictor == 2:
        deltas = raw.view(dtype.str.replace("f", "u").replace("i", "u")).reshape(rows, across, -1, samples)
        whole = np.cumsum(deltas, axis=2, dtype=deltas.dtype.newbyteorder("="))
        values = whole.view(dtype.newbyteorder("="))
    elif predictor == 1:
        values = raw.view(dtype)
    else:
        raise ValueError(f"predictor {predictor}")
    return values.astype(dtype.newbyteorder("="), copy=False).reshape(rows, -1, samples)


def _numbers(found: Mapping[int, Any], tag: int, *default: int) -> tuple[int, ...]:
    value = found.get(tag, default)
    return tuple(int(part) for part in value) if isinstance(value, tuple) else (int(value),)


def _number(found: Mapping[int, Any], tag: int, default: int) -> int:
    return _numbers(found, tag, default)[0]


def _nodata(found: Mapping[int, Any]) -> float | None:
    text = found.get(_NODATA)
    try:
        return float(str(text).strip("\0 ")) if text else None
    except ValueError:
        return None
