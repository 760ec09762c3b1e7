"""Masks as polygons on the map, their true area, and their way to WGS 84."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataset_tools.maps.georeference import Georeference
from dataset_tools.maps.objects import MapObject
from dataset_tools.maps.raster import rasterio_module

__all__ = ["area_m2", "polygon", "to_wgs84"]

_EQUAL_AREA = "EPSG:6933"
"""A cylindrical projection of the whole globe in which areas are true: Web Mercator's and degrees' are not."""
_METRES_PER_DEGREE = 111_320.0


def polygon(item: MapObject, tolerance: float = 0.0) -> Any:
    """The shapely MultiPolygon of an object in its scene's coordinate reference system, holes included.

    Args:
        item: the object.
        tolerance: in metres on the ground (in units of the map where it has no coordinate reference system): how far
            the outline may be from the mask's; 0: exactly along the pixels' edges.
    """
    from shapely.geometry import MultiPolygon, shape

    rasterio_module()
    from rasterio.features import shapes
    from rasterio.transform import Affine

    reference = item.place.reference.shifted(item.x, item.y)
    found = shapes(item.mask.astype(np.uint8), mask=item.mask, connectivity=4, transform=Affine(*reference.transform))
    whole = MultiPolygon([shape(geometry) for geometry, _ in found])
    if tolerance <= 0:
        return whole
    simple = whole.simplify(tolerance / _metres_per_unit(reference), preserve_topology=True)
    return simple if simple.geom_type == "MultiPolygon" else MultiPolygon([simple])


def area_m2(geometry: Any, crs: str | None) -> float | None:
    """Square metres on the ground of a geometry in ``crs``; None without one."""
    if crs is None:
        return None
    return float(_moved(geometry, crs, _EQUAL_AREA).area)


def to_wgs84(geometry: Any, crs: str) -> Any:
    """The MultiPolygon in longitude and latitude (RFC 7946: outer rings against the clock, cut at the antimeridian)."""
    from shapely.geometry import MultiPolygon, box
    from shapely.geometry.polygon import orient

    moved = _moved(geometry, crs, "EPSG:4326")
    west, _, east, _ = moved.bounds
    if east - west > 180:
        shifted = _mapped(moved, lambda xy: xy + np.column_stack([360 * (xy[:, 0] < 0), 0 * xy[:, 1]]))
        left = shifted.intersection(box(0, -90, 180, 90))
        right = _mapped(shifted.intersection(box(180, -90, 360, 90)), lambda xy: xy - [360, 0])
        moved = left.union(right)
    parts = [part for part in getattr(moved, "geoms", [moved]) if part.geom_type == "Polygon" and not part.is_empty]
    return MultiPolygon([orient(part, 1.0) for part in parts])


def _moved(geometry: Any, source: str, target: str) -> Any:
    from rasterio.warp import transform

    def move(xy: Any) -> Any:
        return np.column_stack(transform(source, target, xy[:, 0], xy[:, 1]))

    return _mapped(geometry, move)


def _mapped(geometry: Any, function: Any) -> Any:
    import shapely

    return shapely.transform(geometry, function)


def _metres_per_unit(reference: Georeference) -> float:
    if reference.crs is None:
        return 1.0
    from rasterio.crs import CRS

    crs = CRS.from_user_input(reference.crs)
    if crs.is_geographic:
        return _METRES_PER_DEGREE  # of latitude, the longer ones: no outline is farther off than asked for
    return float(crs.linear_units_factor[1])
