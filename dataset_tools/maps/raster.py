"""Opening raster files through GDAL (rasterio) without giving GDAL more than was asked for.

GDAL reads some hundred formats, several of which name other files, addresses or programs. Here only formats that hold
pixels are opened, and a VRT mosaic only if every file it names lies below the mosaic's own folder and holds pixels
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.addresses import shown
from dataset_tools.maps.georeference import Georeference
from dataset_tools.maps.remote import RangeFile, RemoteFile, name_of, remote_file

__all__ = ["DRIVERS", "crs_of", "georeference_of", "is_map_file", "opened", "rasterio_module", "remote_map"]

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
def opened(source: Path | RemoteFile) -> Iterator[Any]:
    """The rasterio dataset of a file; what GDAL raises in the block becomes a DatasetError.

    Args:
        source: its path, or ``remote_map`` of its address.

    Raises:
        DatasetError: the file is missing, empty, of another format than its suffix says, damaged, breaks off, or is a
            mosaic that names files outside of its folder.
    """
    rasterio = rasterio_module()
    if isinstance(source, RemoteFile):
        # GDAL opens it by any name; one that no other scene has at the same time.
        place, remote, name = f"{id(source)}/{source.name}", source, source.shown
        options: dict[str, Any] = {"opener": partial(_opened_again, source)}
        suffix = Path(source.name).suffix.lower()
    else:
        _check_file(source)
        place, remote, name, options, suffix = str(source), None, str(source), {}, source.suffix.lower()
    import warnings

    with rasterio.Env(**_ENVIRONMENT), warnings.catch_warnings():
        # That an image has no georeference is said by our own words, where it matters.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(place, driver=DRIVERS[suffix], **options) as dataset:
                yield dataset
        except rasterio.errors.RasterioError as error:
            if remote is not None and remote.failure is not None:
                raise DatasetError(str(remote.failure)) from error
            reason = " ".join(str(error.__cause__ or error).split())
            raise DatasetError(
                f"{name} cannot be read ({reason[:300]}); if it was copied or downloaded, it may be cut off"
            ) from error
    if remote is not None and remote.failure is not None:
        raise DatasetError(str(remote.failure))


def remote_map(address: str) -> RemoteFile:
    """The GeoTIFF or JPEG 2000 file behind an http(s) address.

    Raises:
        DatasetError: it is of another kind, or cannot be had by ranges.
    """
    if Path(name_of(address)).suffix.lower() not in DRIVERS.keys() - {".vrt"}:
        raise DatasetError(
            f"{shown(address)}: of addresses only .tif, .tiff and .jp2 files are read; download it first"
        )
    return remote_file(address)


def georeference_of(dataset: Any) -> Georeference | None:
    """Where an open dataset lies; None if it has no transform. Its CRS may be None, its transform degenerate."""
    if dataset.transform.is_identity:
        return None
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    return Georeference(crs_of(dataset), (a, b, c, d, e, f))


def crs_of(dataset: Any) -> str | None:
    """The coordinate reference system of an open dataset as ``EPSG:<code>``, else as WKT; None without one."""
    if not dataset.crs:
        return None
    code = dataset.crs.to_epsg()
    return f"EPSG:{code}" if code else str(dataset.crs.to_wkt())


def _opened_again(remote: RemoteFile, _path: str, _mode: str = "rb", **_options: Any) -> RangeFile:
    """What rasterio asks for a file object; GDAL has several at once."""
    return RangeFile(remote)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise DatasetError(f"{path} is empty (0 bytes)")
    if path.suffix.lower() == ".vrt":
        _check_mosaic(path, path.resolve().parent, depth=0)


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
