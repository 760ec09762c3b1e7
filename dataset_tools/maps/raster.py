"""Opening raster files through GDAL (rasterio) without giving GDAL more than was asked for.

GDAL reads some hundred formats, several of which name other files, addresses or programs. Here only formats that hold
pixels are opened, and a VRT mosaic only if every file it names lies below the mosaic's own folder and holds pixels
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataset_tools.errors import DatasetError

__all__ = ["DRIVERS", "is_map_file", "opened", "rasterio_module"]

DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".vrt": "VRT", ".jp2": "JP2OpenJPEG"}
"""GDAL's name of the one format that a file with this suffix is read as."""
_SIGNATURES = (
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)
_ENVIRONMENT = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no files beside the one that was named
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    "GDAL_CACHEMAX": 64,  # megabytes; the default is a share of the machine's memory
    "GDAL_PAM_ENABLED": "NO",  # neither read nor write .aux.xml
}
_NAMED_FILES = ("SourceFilename", "SourceDataset")


def is_map_file(path: Path) -> bool:
    """Whether ``path`` is of a kind that only GDAL reads well: GeoTIFF, VRT mosaic, JPEG 2000."""
    return path.suffix.lower() in DRIVERS


def rasterio_module() -> Any:
    """The package rasterio; DatasetError naming the extra where it is not installed."""
    try:
        import rasterio
    except ImportError:
        raise DatasetError("map files need the extra: pip install 'pslg-sam[geo]'") from None
    return rasterio


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The rasterio dataset of the file ``path``; what GDAL raises in the block becomes a DatasetError.

    Raises:
        DatasetError: the file is missing, empty, of another format than its suffix says, damaged, or a mosaic that
            names files outside of its folder.
    """
    rasterio = rasterio_module()
    if not path.is_file():
        raise DatasetError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise DatasetError(f"{path} is empty (0 bytes)")
    if path.suffix.lower() == ".vrt":
        _check_mosaic(path, path.resolve().parent, depth=0)
    import warnings

    with rasterio.Env(**_ENVIRONMENT), warnings.catch_warnings():
        # That an image has no georeference is said by our own words, where it matters.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(path, driver=DRIVERS[path.suffix.lower()]) as dataset:
                yield dataset
        except rasterio.errors.RasterioError as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise DatasetError(f"{path} cannot be read: {reason[:300]}") from error


def _check_mosaic(path: Path, folder: Path, depth: int) -> None:
    """Refuse a VRT that names anything but raster files below ``folder``."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if depth > 3:
        raise DatasetError(f"{path}: mosaics of mosaics are read three deep at most")
    try:
        root = fromstring(path.read_bytes())
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise DatasetError(f"{path} is no VRT mosaic: {error}") from error
    if root.tag != "VRTDataset":
        raise DatasetError(f"{path} is no VRT mosaic: its root is <{root.tag}>, not <VRTDataset>")
    for element in root.iter():
        if element.tag not in _NAMED_FILES:
            continue
        name = (element.text or "").strip()
        relative = element.get("relativeToVRT") == "1"
        source = (path.parent / name if relative else Path(name)).resolve()
        if not name or ":" in name or name.startswith("/vsi") or not source.is_relative_to(folder):
            raise DatasetError(f"{path} names {name!r}: a mosaic reads files below its own folder only ({folder})")
        if not source.is_file():
            raise DatasetError(f"{path} names {name!r}, which does not exist below {folder}")
        if source.suffix.lower() == ".vrt":
            _check_mosaic(source, folder, depth + 1)
            continue
        with source.open("rb") as file:
            start = file.read(16)
        if not start.startswith(_SIGNATURES):
            raise DatasetError(f"{path} names {name!r}, which is no TIFF, JPEG, PNG, WebP or JPEG 2000 file")
