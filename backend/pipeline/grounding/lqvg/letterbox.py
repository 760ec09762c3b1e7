"""From an image to the network's square input and back, as in the original's inference."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from backend.pipeline.types import Box, Image

_BORDER = (124, 116, 104)  # ImageNet's mean colour as the original stores it
_MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
_DEVIATION = np.array((0.229, 0.224, 0.225), dtype=np.float32)


@dataclass(frozen=True)
class Letterbox:
    """How an image was fitted into a square: scaled by ``ratio``, then moved by (``left``, ``top``) pixels.

    ``left`` and ``top`` are half of the free space and not rounded, although pixels were moved by whole numbers: the
    original maps boxes back with these values.
    """

    ratio: float
    left: float
    top: float

    def to_image(self, box: Box) -> Box:
        """A box in pixels of the square -> pixels of the image; not clipped."""
        return Box(
            (box.x0 - self.left) / self.ratio,
            (box.y0 - self.top) / self.ratio,
            (box.x1 - self.left) / self.ratio,
            (box.y1 - self.top) / self.ratio,
        )


def letterbox(image: Image, size: int) -> tuple[Image, Letterbox]:
    """Fit ``image`` uint8[H, W, 3] RGB into a square of ``size`` pixels, borders in ImageNet's mean colour."""
    height, width = image.shape[:2]
    ratio = size / max(height, width)
    new_width, new_height = round(width * ratio), round(height * ratio)
    left, top = (size - new_width) / 2, (size - new_height) / 2
    if (new_width, new_height) != (width, height):
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    square = cv2.copyMakeBorder(
        image,
        round(top - 0.1),
        round(top + 0.1),
        round(left - 0.1),
        round(left + 0.1),
        cv2.BORDER_CONSTANT,
        value=_BORDER,
    )
    return square.astype(np.uint8, copy=False), Letterbox(ratio, left, top)


def normalize(image: Image) -> npt.NDArray[np.float32]:
    """uint8[H, W, 3] RGB -> float32[3, H, W] with ImageNet's mean and deviation."""
    scaled = (image.astype(np.float32) / np.float32(255) - _MEAN) / _DEVIATION
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))
