"""Image files -> uint8[H, W, 3] RGB as a browser shows them: orientation applied once, any mode, bounded size."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from backend.pipeline.types import Image
from dataset_tools.errors import ImageError

__all__ = ["decode_image"]


def decode_image(data: bytes, max_pixels: int) -> Image:
    """Decode an image file.

    16-bit gray values are divided by 257 as browsers do; 32-bit and floating values are stretched from their minimum to
    their maximum; transparent parts become white; CMYK, palette and gray images become RGB; of an animation the first
    frame is taken. The EXIF orientation is applied, exactly once.

    Raises:
        ImageError: not an image, damaged, or of more than ``max_pixels`` pixels (checked before decoding).
    """
    try:
        with PillowImage.open(io.BytesIO(data)) as file:
            width, height = file.size
            if width * height > max_pixels:
                raise ImageError(_too_large(width, height, max_pixels))
            file.load()
            return _rgb(ImageOps.exif_transpose(file))
    except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning) as error:
        raise ImageError(f"the image is too large ({error}); cut it into tiles (pslg dataset tile)") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image that can be read: {len(data)} bytes beginning with {data[:8]!r}") from error
    except (OSError, SyntaxError, ValueError, EOFError, ZeroDivisionError) as error:
        raise ImageError(f"the image is damaged or truncated ({error}); {len(data)} bytes were read") from error


def _too_large(width: int, height: int, max_pixels: int) -> str:
    return (
        f"the image has {width} x {height} pixels, more than the limit of {max_pixels} (PSLG_IMAGE_PIXELS);"
        " cut it into tiles (pslg dataset tile)"
    )


def _rgb(file: PillowImage.Image) -> Image:
    if file.mode.startswith("I") or file.mode == "F":
        gray = _eight_bit(np.asarray(file))
        return np.ascontiguousarray(np.repeat(gray[:, :, None], 3, axis=2))
    if file.has_transparency_data:
        rgba = file.convert("RGBA")
        file = PillowImage.alpha_composite(PillowImage.new("RGBA", file.size, "white"), rgba)
    return np.array(file.convert("RGB"))


def _eight_bit(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    levels = np.nan_to_num(values.astype(np.float64))
    low, high = float(levels.min()), float(levels.max())
    if values.dtype.kind in "iu" and low >= 0 and high <= 65535:
        return (levels / 257).round().astype(np.uint8)
    return ((levels - low) * (255 / (high - low if high > low else 1.0))).round().astype(np.uint8)
