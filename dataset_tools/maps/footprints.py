"""Which images show the same ground: by where they lie, whatever file, name or coordinate system they come from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dataset_tools.errors import DatasetError
from dataset_tools.maps.georeference import Georeference
from dataset_tools.maps.polygons import to_wgs84
from dataset_tools.maps.raster import georeference_of, is_map_file, opened, rasterio_module
from dataset_tools.records import SourceImage

__all__ = ["Footprint", "footprint", "overlapping"]

_EDGE = 0.75
"""Images share ground if they do so by more than twice this many pixels: files cut from one grid may share an edge."""


@dataclass(frozen=True)
class Footprint:
    """Where an image lies.

    Attributes:
        name: of the image.
        scene: that it was cut from; None if that is not known.
        size: (width, height) in pixels.
        reference: with a coordinate reference system.
    """

    name: str
    scene: str | None
    size: tuple[int, int]
    reference: Georeference


def footprint(image: SourceImage) -> Footprint | None:
    """Where an image of a dataset lies: as the dataset says, else as its own GeoTIFF does; None if nothing says it.

    Raises:
        DatasetError: the file says something that cannot be.
    """
    reference = Georeference.from_json(image.extra)
    if reference is None and image.location and is_map_file(Path(image.location)) and Path(image.location).is_file():
        try:
            rasterio_module()
        except DatasetError:
            return None  # most TIFF files of datasets have no place, and are read without the extra
        with opened(Path(image.location)) as dataset:
            reference = georeference_of(dataset)
    if reference is None or reference.crs is None:
        return None
    return Footprint(image.file_name, image.cut_from, (image.width, image.height), reference)


def overlapping(footprints: Iterable[Footprint]) -> list[tuple[str, str]]:
    """(name, name) of every two images of different scenes that share ground.

    Raises:
        DatasetError: it cannot be told without the extra ``geo``.
    """
    known = list(footprints)
    if len({one.scene or one.name for one in known}) < 2:
        return []
    try:
        import shapely
    except ImportError:
        raise DatasetError(
            "whether its georeferenced scenes share ground is looked up with the extra: pip install 'pslg-sam[geo]'"
        ) from None
    rasterio_module()
    one_crs = len({one.reference.crs for one in known}) == 1
    areas = []
    for one in known:
        width, height = one.size
        corners = ((0, 0), (width, 0), (width, height), (0, height))
        ground = shapely.Polygon([one.reference.position(x, y) for x, y in corners])
        if not one_crs:
            # An edge that is straight in one coordinate system is none in another.
            ground = to_wgs84(ground.segmentize(max(ground.length / 64, 1e-12)), str(one.reference.crs))
        pixel = math.sqrt(ground.area / (width * height))
        areas.append(ground.buffer(-_EDGE * pixel, join_style="mitre"))
    first, second = shapely.STRtree(areas).query(areas, predicate="intersects")
    return [
        (known[i].name, known[j].name)
        for i, j in zip(first.tolist(), second.tolist(), strict=True)
        if i < j and (known[i].scene or known[i].name) != (known[j].scene or known[j].name)
    ]
