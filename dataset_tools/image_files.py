"""Image files as they are and as loaders want them: 8-bit RGB, upright, of the recorded size."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from dataset_tools.errors import DatasetError

MAX_PIXELS = 400_000_000
"""Larger images are refused: one would not fit in memory several times over."""
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
_ORIENTATION = 0x0112


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """The upright image as uint8[H, W, 3] RGB; 16-bit data is scaled by 1/257, alpha is dropped.

    Raises:
        DatasetError: the file is missing, no image, damaged, or larger than ``MAX_PIXELS``.
    """
    with _opened(path) as image:
        return np.asarray(_rgb(image))


def as_rgb_file(path: Path, suffix: str, size: tuple[int, int]) -> bytes:
    """The bytes of an 8-bit RGB file: the file itself where it already is one, else a new one.

    Args:
        path: the source image.
        suffix: of the file wanted: ``.jpg`` or ``.jpeg`` (quality 95), ``.png``, ``.tif`` or ``.tiff``.
        size: (width, height) that the records were made for.

    Raises:
        DatasetError: the source is unreadable, of another size, or the suffix is unknown.
    """
    kind = _FORMATS.get(suffix.lower())
    if kind is None:
        raise DatasetError(f"images cannot be written as {suffix!r}; choose one of {', '.join(_FORMATS)}")
    with _opened(path) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
        width, height = image.size[::-1] if orientation >= 5 else image.size
        if (width, height) != size:
            raise DatasetError(f"{path} has {width} x {height} pixels, its masks are for {size[0]} x {size[1]}")
        if image.format == kind and image.mode == "RGB" and orientation == 1:
            image.load()  # a truncated file must not be copied into a dataset
            return path.read_bytes()
        rgb = _rgb(image)
    buffer = io.BytesIO()
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {"compress_level": 3}, "TIFF": {}}[kind]
    rgb.save(buffer, kind, **options)
    return buffer.getvalue()


def suffix_for(file_name: str) -> str:
    """The suffix under which an image is exported: its own where loaders read it, ``.png`` (lossless) elsewhere."""
    suffix = PurePosixPath(file_name).suffix.lower()
    return suffix if suffix in (".jpg", ".jpeg", ".png") else ".png"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The opened image; what Pillow raises in the block, it raises because the file is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit, just below, decides
            image = Image.open(path)
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} is not a readable image: {error}") from error
    with image:
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width} x {image.height} pixels"
            raise DatasetError(f"{path} has {size}, more than {MAX_PIXELS:,}; tile it first")
        try:
            yield image
        except (OSError, SyntaxError, ValueError) as error:
            raise DatasetError(f"{path} is damaged: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)
        grey = np.clip(values // 257 if values.max(initial=0) > 255 else values, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    return upright.convert("RGB")
