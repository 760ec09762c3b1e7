"""Small GeoTIFFs made by the tests."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine

UTM = ("EPSG:32633", Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000))
MERCATOR = ("EPSG:3857", Affine(0.6, 0, 1_500_000, 0, -0.6, 6_500_000))
DEGREES = ("EPSG:4326", Affine(5e-6, 0, 13.4, 0, -5e-6, 52.5))
_turn = Affine.translation(500_000, 4_000_000) * Affine.rotation(30) * Affine.scale(0.5, -0.5)
ROTATED = ("EPSG:32633", _turn)
PLACES = {"utm": UTM, "mercator": MERCATOR, "degrees": DEGREES, "rotated": ROTATED}


def write(
    path: Path,
    values: npt.NDArray[Any],
    place: tuple[str | None, Affine | None] = UTM,
    colors: Any = None,
    **options: Any,
) -> Path:
    """A GeoTIFF of ``values`` [bands, H, W]."""
    crs, transform = place
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # some are meant to have none
        _write(path, values, crs, transform, colors, options)
    return path


def _write(
    path: Path,
    values: npt.NDArray[Any],
    crs: str | None,
    transform: Affine | None,
    colors: Any,
    options: dict[str, Any],
) -> None:
    bands, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=height, width=width, dtype=values.dtype, crs=crs,
        transform=transform, **options,
    ) as file:  # fmt: skip
        file.write(values)
        if colors is not None:
            file.colorinterp = colors


def noise(
    bands: int = 3, height: int = 130, width: int = 200, kind: Any = np.uint8, top: int = 255
) -> npt.NDArray[Any]:
    """Reproducible values [bands, height, width] from 1 to ``top``."""
    return np.random.default_rng(0).integers(1, top + 1, (bands, height, width)).astype(kind)
