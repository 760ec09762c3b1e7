"""A scene of any size, read window by window as 8-bit RGB with transparency where it holds nothing.

8-bit values are taken as they are. Deeper ones (16-bit, float) are stretched between the 0.5 and 99.5 percentiles of
the chosen bands (by the rules of ``image_files``), ONCE for the whole scene, of a large one estimated on a grid of
samples: neighbouring tiles look alike, and a tile of
sea does not become noise. Memory does not grow with the scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from dataset_tools import band_pictures, image_files
from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.addresses import shown
from dataset_tools.maps.georeference import Georeference, of_world_file
from dataset_tools.maps.raster import crs_of, georeference_of, is_map_file, opened, rasterio_module, remote_map
from dataset_tools.maps.remote import RangeFile, RemoteFile
from dataset_tools.tiff_bands import header, is_premultiplied, orientation

__all__ = ["MapScene", "Window", "open_scene"]

Window: TypeAlias = tuple[int, int, int, int]
"""(x, y, width, height) in pixels of the scene as it is read, that is after ``gsd``."""

_SAMPLES = 8
"""The stretch is estimated on this many times this many windows, spread evenly."""
_SAMPLE_SIDE = 256
_METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True)
class _Reading:
    """How the file's bands become RGB and transparency; ``opaque`` is the value of ``alpha`` that hides all below."""

    bands: tuple[int, ...]
    alpha: int | None
    opaque: float
    premultiplied: bool
    uses_mask: bool
    nodata: float | None
    palette: npt.NDArray[np.uint8] | None


class MapScene:
    """An open scene.

    Attributes:
        name: file name without suffix.
        source: file name.
        width, height: pixels as it is read (after ``gsd``).
        reference: where it lies; None if the file does not say.
        bands: the bands that are read as red, green and blue, counted from 1.
        stretch: (low, high) values that become 0 and 255; None where values are 8-bit already.
        notes: what a person should know of how it is read, one sentence each.
    """

    def __init__(
        self,
        dataset: Any,
        source: Path | RemoteFile,
        bands: Sequence[int] | None,
        gsd: float | None,
        tags: Mapping[int, Any],
    ) -> None:
        self._dataset = dataset
        self.source = source.name
        self.name = PurePath(self.source).stem
        self.notes: list[str] = []
        native = _georeference(dataset, source, self.notes)
        self._factor = _factors(dataset, native, gsd, self.source)
        self.width = max(1, round(dataset.width * self._factor[0]))
        self.height = max(1, round(dataset.height * self._factor[1]))
        exact = self.width / dataset.width, self.height / dataset.height
        self._factor = exact
        self.reference = native.scaled(*exact) if native else None
        self._reading = _reading(dataset, bands, self.source, self.notes, is_premultiplied(tags))
        self.bands = self._reading.bands
        self.stretch = self._stretch()
        if self.stretch is not None:
            kind = dataset.dtypes[self.bands[0] - 1]
            self.notes.append(f"{kind} values from {self.stretch[0]:g} to {self.stretch[1]:g} are shown as 0 to 255")

    def read(self, window: Window, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        """uint8[h, w, 4] RGBA of ``window``; alpha is 0 where the scene holds nothing (nodata, mask, alpha).

        Soft transparency stays soft; the colours are never multiplied by it.

        Args:
            window: inside the scene.
            size: (width, height) to resample the window to, without ever holding more than that; None: its own.

        Raises:
            DatasetError: the window is not inside the scene, or the file is damaged there.
        """
        x, y, width, height = window
        if x < 0 or y < 0 or width < 1 or height < 1 or x + width > self.width or y + height > self.height:
            raise DatasetError(f"the window {window} is not inside the scene's {self.width} x {self.height} pixels")
        width, height = size or (width, height)
        values = self._values(window, size)
        seen = self._seen(values, window)
        if not seen.any():
            return np.zeros((height, width, 4), np.uint8)
        result = np.empty((height, width, 4), np.uint8)
        if self._reading.palette is not None:
            result[..., :3] = self._reading.palette[values[0]]
        else:
            if self.stretch is not None:
                low, high = self.stretch
                values = band_pictures.levels(values, low, high)  # NaN is nothing and was taken out by _seen
            result[..., :3] = values.transpose(1, 2, 0)  # one band fills all three channels
        opacity = self._opacity(window, (width, height))
        if opacity is None:
            result[..., 3] = 255
        else:
            result[..., 3] = np.rint(255 * opacity)
            if self._reading.premultiplied:
                straight = result[..., :3] / np.maximum(opacity, 1 / 255)[..., None]
                result[..., :3] = np.minimum(np.rint(straight), 255)
        result[~seen] = 0
        return result

    def _values(self, window: Window, size: tuple[int, int] | None = None) -> npt.NDArray[Any]:
        from rasterio.enums import Resampling

        factor = min(self._factor) * (min(size[0] / window[2], size[1] / window[3]) if size else 1.0)
        if self._reading.palette is not None or factor == 1.0:
            method = Resampling.nearest
        else:
            method = Resampling.average if factor < 1 else Resampling.bilinear
        values: npt.NDArray[Any] = self._read(list(self._reading.bands), window, size or window[2:], method)
        return values

    def _read(self, bands: list[int] | int, window: Window, size: tuple[int, int], method: Any) -> npt.NDArray[Any]:
        width, height = size
        shape = (height, width) if isinstance(bands, int) else (len(bands), height, width)
        values: npt.NDArray[Any] = self._dataset.read(
            bands, window=self._source_window(window), out_shape=shape, resampling=method
        )
        return values

    def _source_window(self, window: Window) -> Any:
        from rasterio.windows import Window as SourceWindow

        x, y, width, height = window
        fx, fy = self._factor
        return SourceWindow(x / fx, y / fy, width / fx, height / fy)

    def _seen(self, values: npt.NDArray[Any], window: Window) -> npt.NDArray[np.bool_]:
        """Where the scene holds something, bool[h, w]."""
        from rasterio.enums import Resampling

        reading = self._reading
        height, width = values.shape[1:]
        seen = np.ones((height, width), bool)
        if np.issubdtype(values.dtype, np.floating):
            seen &= np.isfinite(values).all(axis=0)
        if reading.nodata is not None and not math.isnan(reading.nodata):
            seen &= ~(values == reading.nodata).all(axis=0)
        if reading.alpha is not None:
            opacity = self._opacity(window, (width, height))
            assert opacity is not None  # noqa: S101 - for the type checker
            seen &= opacity > 0
        elif reading.uses_mask:
            mask = self._dataset.read_masks(
                1, window=self._source_window(window), out_shape=(height, width), resampling=Resampling.nearest
            )
            seen &= mask > 0
        return seen

    def _opacity(self, window: Window, size: tuple[int, int]) -> npt.NDArray[np.float32] | None:
        """float32[h, w] in [0, 1] of the band of transparency; None without one."""
        from rasterio.enums import Resampling

        if self._reading.alpha is None:
            return None
        values = self._read(self._reading.alpha, window, size, Resampling.nearest).astype(np.float32)
        return np.clip(values / np.float32(self._reading.opaque), 0, 1)

    def _stretch(self) -> tuple[float, float] | None:
        kinds = {np.dtype(self._dataset.dtypes[band - 1]) for band in self._reading.bands}
        if self._reading.palette is not None:
            return None
        if kinds == {np.dtype(np.uint8)}:
            one_bit = self._dataset.tags(self._reading.bands[0], ns="IMAGE_STRUCTURE").get("NBITS") == "1"
            return (0.0, 1.0) if one_bit else None
        if any(np.issubdtype(kind, np.complexfloating) for kind in kinds):
            raise DatasetError(f"{self.source} holds complex numbers, which are no picture; take their magnitude first")
        if self.width * self.height <= (_SAMPLES * _SAMPLE_SIDE) ** 2:
            whole = (0, 0, self.width, self.height)
            values = self._values(whole)
            samples = values[:, self._seen(values, whole)]
            return band_pictures.black_and_white(samples) if samples.size else (0.0, 1.0)
        side = min(_SAMPLE_SIDE, self.width, self.height)
        seen = []
        for row in range(_SAMPLES):
            for column in range(_SAMPLES):
                x = round(column * (self.width - side) / (_SAMPLES - 1))
                y = round(row * (self.height - side) / (_SAMPLES - 1))
                window = (x, y, side, side)
                values = self._values(window)
                seen.append(values[:, self._seen(values, window)].ravel()[::4])
        samples = np.concatenate(seen)
        if not samples.size:
            return 0.0, 1.0
        return band_pictures.black_and_white(samples)


class _Picture(MapScene):
    """An ordinary picture (PNG, JPEG, WebP), read whole as everywhere else in this project."""

    def __init__(self, path: Path, gsd: float | None) -> None:
        if gsd is not None:
            raise DatasetError(f"{path} has no ground sampling: --gsd is for georeferenced files (.tif, .vrt, .jp2)")
        self._image = image_files.read(path)
        self.name, self.source = path.stem, path.name
        self.height, self.width = self._image.shape[:2]
        self.reference = of_world_file(path)
        self.bands = (1, 2, 3)
        self.stretch = None
        self.notes = []
        if orientation(_header(path)) != 1:
            self.notes.append("its orientation tag turns it: it is read whole, without the georeference of its tags")

    def read(self, window: Window, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        x, y, width, height = window
        part = self._image[y : y + height, x : x + width]
        if size is not None:
            part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        return np.dstack([part, np.full(part.shape[:2], 255, np.uint8)])


@contextmanager
def open_scene(
    source: Path | str, *, bands: Sequence[int] | None = None, gsd: float | None = None
) -> Iterator[MapScene]:
    """The scene in a file.

    Args:
        source: GeoTIFF (plain, tiled, cloud-optimised), VRT mosaic or JPEG 2000, read by windows; PNG, JPEG and WebP
            are read whole. A text is the http(s) address of a GeoTIFF or JPEG 2000, read by ranges.
        bands: three bands (or one) to read as red, green and blue, counted from 1; None: those of PSLG_BANDS, else the
            first three.
        gsd: ground sampling in metres a pixel to resample to; None: as it is.

    Raises:
        DatasetError: the file is missing, empty, damaged, or cannot be read so; the message says what to do.
    """
    if isinstance(source, str):
        rasterio_module()
        remote = remote_map(source)
        file: Path | RemoteFile = remote
        tags: Mapping[int, Any] = header(RangeFile(remote))
        if orientation(tags) != 1:
            raise DatasetError(f"{shown(source)}: its orientation tag turns it; download it first")
    else:
        file, tags = source, _header(source)
        if not is_map_file(source) or (gsd is None and orientation(tags) != 1):
            yield _Picture(source, gsd)
            return
    bands = image_files.default_bands() if bands is None else bands
    with opened(file) as dataset:
        yield MapScene(dataset, file, bands, gsd, tags)


def _header(path: Path) -> Mapping[int, Any]:
    try:
        with path.open("rb") as file:
            return header(file)
    except OSError:
        return {}


def _georeference(dataset: Any, source: Path | RemoteFile, notes: list[str]) -> Georeference | None:
    found = georeference_of(dataset)
    if found is not None and found.is_degenerate:
        raise DatasetError(
            f"{source.name} has the transform {found.transform}, which maps it to a line; repair its georeference"
        )
    if found is None:
        if dataset.gcps[0]:
            notes.append("it has ground control points but no transform: run gdalwarp to get back to the map")
        found = of_world_file(source) if isinstance(source, Path) else None
        if found is not None:
            found = Georeference(crs_of(dataset), found.transform)
    if found is None:
        notes.append("it has no georeference: tiles keep their place in the scene only")
    elif found.crs is None:
        notes.append("it has no coordinate reference system: positions are kept in its own units")
    return found


def _factors(dataset: Any, reference: Georeference | None, gsd: float | None, name: str) -> tuple[float, float]:
    """Columns and rows as read per column and row in the file."""
    if gsd is None:
        return 1.0, 1.0
    if not gsd > 0:
        raise DatasetError(f"--gsd is metres a pixel, above 0; got {gsd}")
    if reference is None or not dataset.crs:
        raise DatasetError(f"{name} has no coordinate reference system, so that --gsd {gsd:g} cannot be related to it")
    width, height = reference.pixel
    if dataset.crs.is_geographic:
        latitude = reference.position(dataset.width / 2, dataset.height / 2)[1]
        metres = _METRES_PER_DEGREE * math.cos(math.radians(latitude)), _METRES_PER_DEGREE
    else:
        unit = float(dataset.crs.linear_units_factor[1])
        metres = unit, unit
    return width * metres[0] / gsd, height * metres[1] / gsd


def _reading(dataset: Any, bands: Sequence[int] | None, name: str, notes: list[str], premultiplied: bool) -> _Reading:
    from rasterio.enums import ColorInterp, MaskFlags, Resampling

    count, opaque = dataset.count, 1.0
    alpha = next((k for k, c in enumerate(dataset.colorinterp, 1) if c == ColorInterp.alpha), None)
    if alpha is not None:
        scale = max(1, max(dataset.width, dataset.height) // 1024)
        shape = (max(1, dataset.height // scale), max(1, dataset.width // scale))
        values = dataset.read(alpha, out_shape=shape, resampling=Resampling.nearest)
        largest = values.max()
        opaque = float(largest) if largest > 0 else 1.0
        if np.mean((values == 0) | (values == largest)) < band_pictures.TRANSPARENT:
            notes.append(f"band {alpha} is tagged as transparency but holds picture values: it is taken for a band")
            alpha = None
    if bands is None:
        free = [band for band in range(1, count + 1) if band != alpha]
        chosen = tuple(free[:3]) if len(free) >= 3 else tuple(free[:1])
        left = [band for band in free if band not in chosen]
        if left:
            notes.append(
                f"of {len(free)} bands {', '.join(map(str, chosen))} are shown; choose others with --bands, e.g."
                f" --bands {','.join(str(band) for band in free[-1:-4:-1])}"
            )
    else:
        chosen = tuple(bands)
        if len(chosen) not in (1, 3) or not all(1 <= band <= count for band in chosen):
            raise DatasetError(
                f"--bands takes one or three of 1 to {count} for {name}; got {','.join(map(str, chosen))}"
            )
    palette = None
    if dataset.colorinterp[chosen[0] - 1] == ColorInterp.palette and len(chosen) == 1:
        colors = dataset.colormap(chosen[0])
        palette = np.zeros((max(256, max(colors) + 1), 3), np.uint8)
        for value, color in colors.items():
            palette[value] = color[:3]
    flags = dataset.mask_flag_enums[chosen[0] - 1]
    # GDAL's own alpha mask is not asked: the band tagged so may be none.
    uses_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    return _Reading(chosen, alpha, opaque, premultiplied, uses_mask, dataset.nodatavals[chosen[0] - 1], palette)
