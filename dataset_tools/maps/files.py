"""Objects as files that a GIS opens: GeoPackage, GeoJSON, and a label raster as cloud-optimised GeoTIFF."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dataset_tools import atomic
from dataset_tools.errors import DatasetError
from dataset_tools.maps.objects import MapObject
from dataset_tools.maps.polygons import area_m2, polygon, to_wgs84
from dataset_tools.maps.raster import rasterio_module

__all__ = ["MAP_FORMATS", "attributes", "write"]

_FIELDS = ("category", "expression", "score", "annotator", "model_version", "task", "origin", "scene", "area_m2")
_LAYER = "objects"
_BLOCK = 256


def attributes(item: MapObject, geometry: Any) -> dict[str, Any]:
    """What is known of an object, by field name; ``area_m2`` is true on the ground, None without a CRS."""
    area = area_m2(geometry, item.place.reference.crs)
    values = {name: getattr(item, name) for name in _FIELDS[:7]}
    return {**values, "scene": item.place.scene, "area_m2": None if area is None else round(area, 3)}


def write(
    path: Path, objects: Sequence[MapObject], kind: str, tolerance: float = 0.0, *, overwrite: bool = False
) -> None:
    """Write ``objects``; the file appears whole or not at all.

    Args:
        path: of the file.
        objects: of one or several scenes.
        kind: one of ``MAP_FORMATS``.
        tolerance: of the outlines in metres on the ground, 0 for exact ones; not for rasters.
        overwrite: replace a file that is there.

    Raises:
        DatasetError: there is nothing to write, the file is there, the extra is missing, or the kind cannot hold the
            objects (GeoJSON needs a CRS, one raster holds one scene).
    """
    if not objects:
        raise DatasetError("there are no objects to write")
    if path.exists() and not overwrite:
        raise DatasetError(f"{path} is there: choose another name or pass --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    MAP_FORMATS[kind](path, objects, tolerance)


def _geopackage(path: Path, objects: Sequence[MapObject], tolerance: float) -> None:
    """One layer ``objects``; one a CRS (``objects_EPSG_32633``...) where there are several."""
    try:
        import pyogrio
        import shapely
    except ImportError:
        raise DatasetError("map files need the extra: pip install 'pslg-sam[geo]'") from None
    by_crs: dict[str | None, list[MapObject]] = {}
    for item in objects:
        by_crs.setdefault(item.place.reference.crs, []).append(item)
    with _whole(path, ".gpkg") as target:
        for number, (crs, members) in enumerate(by_crs.items()):
            layer = _LAYER if len(by_crs) == 1 else f"{_LAYER}_{_layer_name(crs, number)}"
            geometries = [polygon(item, tolerance) for item in members]
            rows = [attributes(item, geometry) for item, geometry in zip(members, geometries, strict=True)]
            pyogrio.raw.write(
                target, np.array([shapely.to_wkb(geometry) for geometry in geometries], object),
                [_column([row[name] for row in rows], name) for name in _FIELDS], list(_FIELDS),
                layer=layer, driver="GPKG", geometry_type="MultiPolygon", crs=crs, append=number > 0,
            )  # fmt: skip


def _layer_name(crs: str | None, number: int) -> str:
    return re.sub(r"\W", "_", crs) if crs and len(crs) < 20 else f"crs_{number}"


def _column(values: list[Any], name: str) -> Any:
    if name in ("score", "area_m2"):
        return np.array([np.nan if value is None else value for value in values], float)
    return np.array(values, object)


def _geojson(path: Path, objects: Sequence[MapObject], tolerance: float) -> None:
    """RFC 7946: WGS 84, longitude before latitude, seven decimals (a centimetre)."""
    import shapely.geometry

    features = []
    for item in objects:
        crs = item.place.reference.crs
        if crs is None:
            raise DatasetError(f"scene {item.place.scene} has no coordinate reference system, which GeoJSON needs")
        exact = polygon(item, tolerance)
        geometry = json.loads(json.dumps(shapely.geometry.mapping(to_wgs84(exact, crs))), parse_float=_seven_decimals)
        features.append({"type": "Feature", "geometry": geometry, "properties": attributes(item, exact)})
    text = json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)
    atomic.write_text(path, text + "\n")


def _seven_decimals(text: str) -> float:
    return round(float(text), 7)


def _cog(path: Path, objects: Sequence[MapObject], _tolerance: float) -> None:
    """Pixels hold the category's number (0: nothing); the tags ``CATEGORY_<n>`` name them."""
    rasterio = rasterio_module()
    from rasterio.shutil import copy
    from rasterio.transform import Affine
    from rasterio.windows import Window

    scenes = {item.place.scene for item in objects}
    if len(scenes) > 1:
        raise DatasetError(
            f"one raster holds one scene, these are {len(scenes)} ({', '.join(sorted(scenes)[:3])}...): choose gpkg, or"
            " export one scene at a time"
        )
    place = objects[0].place
    numbers = {name: number for number, name in enumerate(sorted({item.category for item in objects}), 1)}
    width, height = place.size
    with _whole(path, ".tif") as target, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain = Path(folder) / "labels.tif"
        with rasterio.open(
            plain, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8", crs=place.reference.crs,
            transform=Affine(*place.reference.transform), tiled=True, blockxsize=_BLOCK, blockysize=_BLOCK,
            compress="deflate", sparse_ok=True, nodata=0, BIGTIFF="IF_SAFER",
        ) as raster:  # fmt: skip
            raster.update_tags(**{f"CATEGORY_{number}": name for name, number in numbers.items()})
            raster.write_colormap(1, _colors(numbers))
        with rasterio.open(plain, "r+") as raster:
            for item in objects:
                h, w = item.mask.shape
                window = Window(item.x, item.y, w, h)
                labels = raster.read(1, window=window)
                labels[item.mask] = numbers[item.category]
                raster.write(labels, 1, window=window)
        copy(plain, target, driver="COG", compress="deflate", overview_resampling="nearest")


def _colors(numbers: Mapping[str, int]) -> dict[int, tuple[int, int, int, int]]:
    from dataset_tools.overlays import PALETTE

    colors = {number: (*PALETTE[number % len(PALETTE)], 255) for number in numbers.values()}
    return {0: (0, 0, 0, 0), **colors}


@contextmanager
def _whole(path: Path, suffix: str) -> Iterator[Path]:
    """A name beside ``path`` to write to, which takes its place when the block ends well."""
    handle, name = tempfile.mkstemp(suffix=suffix, prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    target = Path(name)
    target.unlink()
    try:
        yield target
        target.replace(path)
    finally:
        target.unlink(missing_ok=True)


MAP_FORMATS: Mapping[str, Callable[[Path, Sequence[MapObject], float], None]] = {
    "gpkg": _geopackage,
    "geojson": _geojson,
    "cog": _cog,
}
"""What objects can be written as."""
