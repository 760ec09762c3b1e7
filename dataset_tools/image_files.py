"""Image files -> uint8[H, W, 3] RGB. The one place where pixels of a picture are read.

The same file gives the same pixels everywhere: server, commands, datasets, training, the gate.

- Turned as the EXIF orientation says (1 to 8), once, as browsers do. Of an animation or a file of several pages, the
  first picture.
- Gray, 1-bit, palette and CMYK pictures become RGB. Transparent parts become white. A TIFF band tagged as transparency
  is that only if at least 95 % of its values are 0 or its largest; else it is an ordinary band (near infrared, mostly).
- Deep pictures (anything but 8 bits without a sign: 16-bit PNG, integers and floating values of TIFF files) are
  stretched: the 0.5 percentile of all values of the shown bands together becomes black, the 99.5 percentile white.
  Pixels without a value (NaN, infinite, GDAL's NoData in all shown bands, fully transparent) do not count and become
  white. A picture of one value becomes middle gray.
- Of more than three bands the first three are red, green and blue, or those that ``bands`` or PSLG_BANDS name.

What a viewer would not guess (stretching, bands left out) is said to the log, with the file's name.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from dataset_tools import tiff_bands
from dataset_tools.band_pictures import BANDS, compose, turned
from dataset_tools.errors import DatasetError, ImageError

__all__ = [
    "BANDS",
    "MAX_PIXELS",
    "RGB",
    "as_rgb_file",
    "clean_parts",
    "decode",
    "default_bands",
    "file_key",
    "mode",
    "parse_bands",
    "read",
    "suffix_for",
]

RGB = npt.NDArray[np.uint8]
MAX_PIXELS = 400_000_000
"""Larger images are refused unless the caller says otherwise: one would not fit in memory several times over."""
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "JPEG2000", "AVIF", "PPM")
"""Of Pillow's, beside TIFF; none of these starts another program, as EPS does."""
_WRITTEN = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
_FOREIGN = {
    b"%!PS": "PostScript (EPS)", b"\xc5\xd0\xd3\xc6": "PostScript (EPS)", b"%PDF": "PDF", b"8BPS": "Photoshop",
    b"\x89HDF": "HDF5 or NetCDF", b"CDF\x01": "NetCDF", b"CDF\x02": "NetCDF", b"NITF": "NITF", b"EHFA": "ERDAS Imagine",
    b"PK\x03\x04": "a ZIP archive", b"\x1f\x8b": "gzip", b"<svg": "SVG", b"II+\0": "BigTIFF", b"MM\0+": "BigTIFF",
    b"\0\0\1\0": "an icon (ICO)", b"GRIB": "GRIB",
}  # fmt: skip
_ORIENTATION = 0x0112
_STRIP = 1 << 20
_PIXEL_BYTES, _DEEP_BYTES = 11, 24
"""What decoding takes for each pixel: Pillow's picture, the result, the result upright; more for deep ones."""
_VALUE_BYTES = 16
"""A picture's bands may take so many bytes per pixel of the limit."""


def clean_parts(name: str) -> tuple[str, ...]:
    """The parts of a file name without drive, root, ``.`` and ``..``; Windows' separators are taken too."""
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return tuple(parts[1:] if parts and len(parts[0]) == 2 and parts[0][1] == ":" else parts)


def read(
    path: Path, *, max_pixels: int = MAX_PIXELS, bands: tuple[int, int, int] | None = None, limit: str = ""
) -> RGB:
    """A file's picture; see the module for the rules and ``decode`` for the arguments.

    Raises:
        ImageError: the file is missing, no image, damaged, or of more than ``max_pixels`` pixels; it names the file.
    """
    data = _bytes(path)
    try:
        return decode(data, max_pixels=max_pixels, bands=bands, limit=limit, name=str(path))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    bands: tuple[int, int, int] | None = None,
    limit: str = "",
    max_side: int | None = None,
    admit: Callable[[int], AbstractContextManager[object]] = lambda _: nullcontext(),
    name: str = "",
) -> RGB:
    """The picture of an image file's bytes, writable; see the module for the rules.

    Args:
        data: the file.
        max_pixels: checked before anything is decoded.
        bands: of a file with more than three bands, those to show as red, green and blue, counted from 1; None takes
            PSLG_BANDS, else the first three.
        limit: name of the setting behind ``max_pixels``, for the message.
        max_side: longest side in pixels, checked too.
        admit: entered with the bytes that decoding takes, by a careful estimate, while it does; may raise ImageError.
        name: of the file, for the log.

    Raises:
        ImageError: no image, damaged, of more than ``max_pixels`` pixels, or without the ``bands``.
    """
    bands = default_bands() if bands is None else bands
    try:
        if data.startswith(tiff_bands.MAGIC):
            found = tiff_bands.tags(data)
            how = tiff_bands.layout(found)
            if how is not None:
                _require_size(*how.size, max_pixels, limit, max_side)
                size = how.size[0] * how.size[1] * how.bands * how.dtype.itemsize
                if size > _VALUE_BYTES * max_pixels:
                    raise ImageError(
                        f"{how.bands} bands of {how.dtype.name} take {size} bytes, more than {_VALUE_BYTES} for each of"
                        f" {max_pixels} pixels{_named(limit)}; `gdal_translate -b 1 -b 2 -b 3 IN OUT.tif` keeps three"
                    )
                with admit(3 * size + _PIXEL_BYTES * how.size[0] * how.size[1] + len(data)):
                    return compose(tiff_bands.read_bands(data, found, how), how, bands, name)
        with _opened(data) as file:
            _require_size(file.height, file.width, max_pixels, limit, max_side)
            depth = _depth(file, data)
            with admit((_PIXEL_BYTES + (0 if depth == 8 else _DEEP_BYTES)) * file.height * file.width):
                file.load()
                return _simple(file) if depth == 8 else _deep(file, data, name)
    except tiff_bands.DAMAGE as error:
        raise ImageError(f"the image is damaged or truncated ({error}); {len(data)} bytes were read") from error


def mode(data: bytes) -> str:
    """What a file holds, in Pillow's words (``RGB``, ``L``, ``RGBA``), or such as ``RGB;16`` and ``4 bands, uint8``.

    Raises:
        ImageError: no image, or damaged.
    """
    try:
        if data.startswith(tiff_bands.MAGIC):
            how = tiff_bands.layout(tiff_bands.tags(data))
            if how is not None:
                return f"{how.bands} band{'s' * (how.bands > 1)}, {how.dtype.name}"
        with _opened(data) as file:
            depth = _depth(file, data)
            return file.mode if depth == 8 or ";" in file.mode else f"{file.mode};{depth}"
    except tiff_bands.DAMAGE as error:
        raise ImageError(f"the image is damaged or truncated ({error}); {len(data)} bytes were read") from error


def as_rgb_file(path: Path, suffix: str, size: tuple[int, int]) -> bytes:
    """The bytes of an 8-bit RGB file: the file itself where it already is one, else a new one.

    Args:
        path: the source image.
        suffix: of the file wanted: ``.jpg`` or ``.jpeg`` (quality 95), ``.png``, ``.tif`` or ``.tiff``.
        size: (width, height) that the records were made for.

    Raises:
        DatasetError: the source is of another size, or the suffix is unknown.
        ImageError: the source cannot be read.
    """
    kind = _WRITTEN.get(suffix.lower())
    if kind is None:
        raise DatasetError(f"images cannot be written as {suffix!r}; choose one of {', '.join(_WRITTEN)}")
    rgb = read(path)
    height, width = rgb.shape[:2]
    if (width, height) != size:
        raise DatasetError(f"{path} has {width} x {height} pixels, its masks are for {size[0]} x {size[1]}")
    data = _bytes(path)
    if mode(data) == "RGB":
        with _opened(data) as file:
            if file.format == kind and file.getexif().get(_ORIENTATION, 1) == 1 and not file.has_transparency_data:
                return data
    buffer = io.BytesIO()
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {"compress_level": 3}, "TIFF": {}}[kind]
    Image.fromarray(rgb).save(buffer, kind, **options)
    return buffer.getvalue()


def suffix_for(file_name: str) -> str:
    """The suffix under which an image is exported: its own where loaders read it, ``.png`` (lossless) elsewhere."""
    suffix = PurePosixPath(file_name).suffix.lower()
    return suffix if suffix in (".jpg", ".jpeg", ".png") else ".png"


def parse_bands(text: str) -> tuple[int, int, int]:
    """``4,3,2`` -> (4, 3, 2); raises ValueError unless it is three whole numbers from 1 on."""
    try:
        red, green, blue = (int(word) for word in text.split(","))
    except ValueError:
        red = green = blue = 0
    if min(red, green, blue) < 1:
        raise ValueError(f"{text!r} is not three bands for red, green and blue, counted from 1, such as 4,3,2")
    return red, green, blue


def default_bands() -> tuple[int, int, int] | None:
    """The bands that PSLG_BANDS names, None without it; raises ImageError for other values."""
    text = os.environ.get(BANDS, "").strip()
    try:
        return parse_bands(text) if text else None
    except ValueError as error:
        raise ImageError(f"{BANDS}: {error}") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror}") from error
    except ValueError as error:  # a zero byte in its name
        raise ImageError(f"cannot read the image {str(path)!r}: {error}") from error


def _opened(data: bytes) -> Any:
    """Pillow's image, its pixels not yet decoded. ``Image.open`` would apply a limit of its own beside ours."""
    if data.startswith(tiff_bands.MAGIC):
        try:
            return TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        except tiff_bands.DAMAGE as error:
            raise ImageError(
                f"the TIFF file is damaged or of a kind that is not read ({error});"
                " `gdal_translate -of GTiff IN.tif OUT.tif` may write one that is"
            ) from error
    Image.init()
    for kind in _FORMATS:
        factory, accepts = Image.OPEN.get(kind, (None, None))
        if factory is not None and accepts is not None and accepts(data[:16]) is True:
            try:
                return factory(io.BytesIO(data), "")
            except (SyntaxError, IndexError, TypeError):
                continue  # another kind may begin alike
    begin = data[:64].lstrip()
    foreign = next(
        (word for magic, word in _FOREIGN.items() if data.startswith(magic) or begin.startswith(magic)), None
    )
    if foreign is not None:
        raise ImageError(
            f"the file is {foreign}, which is not read; `gdal_translate -of GTiff IN OUT.tif` converts many"
        )
    raise ImageError(f"not an image that can be read: {len(data)} bytes beginning with {data[:8]!r}")


def _require_size(height: int, width: int, max_pixels: int, limit: str, max_side: int | None) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"the image has {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"the image has {width} x {height} pixels, more than the limit of {max_pixels}{_named(limit)};"
            " cut it into tiles (pslg dataset tile)"
        )
    if max_side is not None and max(width, height) > max_side:
        raise ImageError(
            f"the image has {width} x {height} pixels, a side longer than {max_side}, which no browser shows;"
            " cut it into tiles (pslg dataset tile)"
        )


def _named(limit: str) -> str:
    return f" ({limit})" if limit else ""


def _depth(file: Any, data: bytes) -> int:
    """Bits per value; Pillow makes 8 of deep RGB without a word. To be called before the pixels are decoded."""
    if file.mode.startswith("I") or file.mode == "F":
        return 32 if file.mode in ("I", "F") and file.format != "PNG" else 16
    if file.format == "PNG" and data[24] == 16:
        return 16
    if file.format == "PPM" and file.tile and isinstance(file.tile[0][3], tuple) and file.tile[0][3][-1] > 255:
        return 16
    if file.format == "JPEG2000":
        start = data.find(b"\xff\x4f\xff\x51")
        depth = (data[start + 42] & 0x7F) + 1
        if depth > 8:
            raise ImageError(
                f"JPEG 2000 of {depth} bits in {len(file.getbands())} bands is not read;"
                " `gdal_translate IN.jp2 OUT.tif` converts it"
            )
    return 8


def _simple(file: Any) -> RGB:
    """8-bit pictures: the fast path."""
    transparent = file.has_transparency_data
    rgb = np.empty((file.height, file.width, 3), np.uint8)
    rows = max(1, _STRIP // file.width)
    for top in range(0, file.height, rows):  # Pillow holds the picture once: no second whole one beside the result
        strip = file.crop((0, top, file.width, min(top + rows, file.height)))
        if transparent:
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip.convert("RGBA"))
        rgb[top : top + rows] = strip if strip.mode == "RGB" else strip.convert("RGB")
    orientation = int(file.getexif().get(_ORIENTATION, 1))
    return rgb if orientation == 1 else turned(rgb, orientation)


def _deep(file: Any, data: bytes, name: str) -> RGB:
    """Deep pictures of other formats than TIFF; Pillow has checked that the file is whole."""
    alpha: int | None = None
    nodata = None
    if file.mode.startswith("I") or file.mode == "F":
        values = np.asarray(file)[:, :, None]
        hidden = file.info.get("transparency")
        nodata = float(hidden) if isinstance(hidden, int) else None
    else:
        import cv2

        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None or decoded.shape[:2] != (file.height, file.width) or decoded.ndim != 3:
            raise ImageError(f"a deep {file.format} file of mode {file.mode} is not read; convert it to TIFF")
        alpha = 3 if decoded.shape[2] == 4 else None
        turn = cv2.COLOR_BGR2RGB if alpha is None else cv2.COLOR_BGRA2RGBA
        values = cv2.cvtColor(decoded, turn, dst=decoded)
    how = tiff_bands.Layout(
        size=(file.height, file.width),
        bands=values.shape[2],
        dtype=values.dtype,
        alpha=alpha,
        premultiplied=False,
        inverted=False,
        nodata=nodata,
        orientation=int(file.getexif().get(_ORIENTATION, 1)),
    )
    return compose(values, how, None, name)


def file_key(path: Path) -> str:
    """The sha256 of the file, 64 hex digits; a file that has not changed is read once per process.

    Raises:
        ImageError: the file is missing or cannot be read.
    """
    try:
        state = path.stat()
        return _file_key(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror or error}") from error


@lru_cache(maxsize=1 << 16)
def _file_key(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
