"""Tiles of large images, with the transform that leads back: name, scene and window are kept for every tile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools import atomic, image_files
from dataset_tools.errors import DatasetError

# GeoTIFF tags: pixel scale, tie points, geo keys.
_SCALE, _TIE, _KEYS = 33550, 33922, 34735
_CRS_KEYS = (3072, 2048)
"""ProjectedCSTypeGeoKey and GeographicTypeGeoKey, whose values are EPSG codes."""


@dataclass(frozen=True)
class Georeference:
    """Where an image lies: ``crs`` (EPSG code as text, None if unknown) and the affine ``transform``.

    ``transform`` is (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]

    def shifted(self, x: int, y: int) -> Georeference:
        """The georeference of a tile whose upper left pixel is (x, y)."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a, b, a * x + b * y + c, d, e, d * x + e * y + f))


def georeference(path: Path) -> Georeference | None:
    """Of a GeoTIFF's tags, or of a world file beside the image (``.tfw``, ``.jgw``, ``.pgw``, ``.wld``); else None.

    Raises:
        ImageError: the image is unreadable.
        DatasetError: a world file does not hold six numbers.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        tags = image_files.tags(path)
        if _SCALE in tags and _TIE in tags:
            sx, sy = tags[_SCALE][:2]
            column, row, _, x, y = tags[_TIE][:5]
            keys = tags.get(_KEYS, ())
            entries = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4)}
            code = next((entries[key] for key in _CRS_KEYS if key in entries), None)
            return Georeference(f"EPSG:{code}" if code else None, (sx, 0.0, x - column * sx, 0.0, -sy, y + row * sy))
    for suffix in (path.suffix[:2] + path.suffix[-1:] + "w", ".wld"):
        world = path.with_suffix(suffix)
        if world.is_file():
            try:
                a, d, b, e, c, f = (float(word) for word in world.read_text().split())
            except ValueError:
                raise DatasetError(f"{world} must hold six numbers, one per line") from None
            # A world file gives the centre of the upper left pixel, a transform its corner.
            return Georeference(None, (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2))
    return None


def windows(width: int, height: int, side: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """(x, y, width, height) of tiles that cover an image; the last row and column are moved inwards to be whole."""

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = -(-(length - overlap) // (side - overlap))
        return [round(k * (length - side) / (count - 1)) for k in range(count)]

    for y in starts(height):
        for x in starts(width):
            yield x, y, min(side, width), min(side, height)


def tile(path: Path, folder: Path, side: int = 1024, overlap: int = 64) -> list[Path]:
    """Cut an image into PNG tiles ``<stem>_<x>_<y>.png`` and write one line per tile to ``tiles.jsonl``.

    Tiles without any content (all pixels equal, as the fill around an oblique scene) are left out.

    Args:
        path: any image that ``image_files`` reads, deep values and many bands included.
        folder: where the tiles go.
        side: in pixels.
        overlap: of neighbouring tiles in pixels, at least; below ``side``.

    Raises:
        ImageError: the image is unreadable.
        DatasetError: the sizes do not fit.
    """
    if not 0 <= overlap < side:
        raise DatasetError(f"the overlap ({overlap}) must be at least 0 and below the side ({side})")
    image = image_files.read(path)
    reference = georeference(path)
    made, lines = [], []
    for x, y, width, height in windows(image.shape[1], image.shape[0], side, overlap):
        crop = image[y : y + height, x : x + width]
        if (crop == crop[0, 0]).all():
            continue
        file = folder / f"{path.stem}_{x}_{y}.png"
        atomic.write_bytes(file, _png(crop))
        geo = reference.shifted(x, y) if reference else None
        line = {"file_name": file.name, "scene": path.stem, "source": path.name, "window": [x, y, width, height]}
        lines.append({**line, **(asdict(geo) if geo else {})})
        made.append(file)
    index = folder / "tiles.jsonl"
    names = {line["file_name"] for line in lines}
    kept = index.read_text(encoding="utf-8").splitlines() if index.is_file() else []
    kept = [text for text in kept if json.loads(text)["file_name"] not in names]
    atomic.write_text(index, "".join(f"{text}\n" for text in [*kept, *map(json.dumps, lines)]))
    return made


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    encoded, data = cv2.imencode(".png", image[:, :, ::-1])
    assert encoded  # noqa: S101 - PNG takes every 8-bit array
    return bytes(data)
