"""From the map and back, measured: ``python -m benchmarks.map_round_trip``.

Drawn masks lie in a generated GeoTIFF in four coordinate systems; they are cut into tiles, written as GeoPackage,
GeoJSON and label raster, and read back as a GIS reads them (pyogrio, geopandas where it is installed, rasterio). Per
row: the farthest that an outline is from the mask's own, in pixels of the scene, and the largest error of ``area_m2``
against the ground area of the mask's pixels on the ellipsoid. Needs the extra ``geo``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio
import shapely
import shapely.geometry
from rasterio.features import shapes
from rasterio.transform import Affine
from rasterio.warp import transform as warp

from dataset_tools.maps import files, tiles
from dataset_tools.maps.objects import TilePlaces, joined, objects_of
from dataset_tools.records import Provenance, Record, Sample, SourceImage, target_of

WIDTH, HEIGHT, OBJECTS = 640, 480, 12
Mask = npt.NDArray[np.bool_]
_TURNED = Affine.translation(500_000, 4_000_000) * Affine.rotation(30) * Affine.scale(0.5, -0.5)
PLACES = {
    "UTM 33N": ("EPSG:32633", Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)),
    "Web Mercator": ("EPSG:3857", Affine(0.6, 0, 1_500_000, 0, -0.6, 6_500_000)),
    "WGS 84": ("EPSG:4326", Affine(5e-6, 0, 13.4, 0, -5e-6, 52.5)),
    "UTM, turned by 30 degrees": ("EPSG:32633", _TURNED),
}
_AXIS, _FLATTENING = 6_378_137.0, 1 / 298.257223563


def draw_masks() -> list[Mask]:
    """Ellipses in a grid, turned any way, every third with a hole; no two touch."""
    masks: list[Mask] = []
    random = np.random.default_rng(0)
    for number in range(OBJECTS):
        row, column = divmod(number, 4)
        center = 80 + 160 * column, 80 + 160 * row
        axes = int(random.integers(15, 60)), int(random.integers(15, 60))
        canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(canvas, center, axes, int(random.integers(180)), 0, 360, 1, -1)
        if number % 3 == 0:
            cv2.circle(canvas, center, 8, 0, -1)
        masks.append(canvas.astype(bool))
    return masks


def ground_area(mask: Mask, crs: str, transform: Affine) -> float:
    """Square metres of the mask's pixels on the WGS 84 ellipsoid, each as a flat quadrilateral in space."""
    rows, columns = np.nonzero(mask)
    corners = []
    for dx, dy in ((0, 0), (1, 0), (1, 1), (0, 1)):
        x, y = transform * (columns + dx, rows + dy)
        longitude, latitude = (np.radians(values) for values in warp(crs, "EPSG:4326", x, y))
        eccentricity = _FLATTENING * (2 - _FLATTENING)
        radius = _AXIS / np.sqrt(1 - eccentricity * np.sin(latitude) ** 2)
        corners.append(
            np.stack(
                [
                    radius * np.cos(latitude) * np.cos(longitude),
                    radius * np.cos(latitude) * np.sin(longitude),
                    radius * (1 - eccentricity) * np.sin(latitude),
                ],
                axis=1,
            )
        )
    diagonals = corners[2] - corners[0], corners[3] - corners[1]
    return float(np.linalg.norm(np.cross(*diagonals), axis=1).sum() / 2)


def write_scene(folder: Path, crs: str, transform: Affine) -> Path:
    """A GeoTIFF with something in every tile."""
    path = folder / "scene.tif"
    values = np.random.default_rng(1).integers(1, 255, (3, HEIGHT, WIDTH), np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=3, dtype="uint8", crs=crs, transform=transform
    ) as file:
        file.write(values)
    return path


def labelled(folder: Path, masks: list[Mask]) -> list[Sample]:
    """What annotators would have made of the tiles."""
    found = []
    for name, line in tiles.read_index(folder).items():
        x, y, width, height = line["window"]
        parts = [(number, mask[y : y + height, x : x + width]) for number, mask in enumerate(masks)]
        records = tuple(
            Record(f"thing {number}", "ship", (target_of(part),), provenance=Provenance(task=name))
            for number, part in parts
            if part.any()
        )
        found.append(Sample(SourceImage(name, width, height), records))
    return found


def outlines(path: Path, crs: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(reader, expression -> (outline in ``crs``, area_m2)) for every reader of the file that is installed."""
    meta, _, geometries, columns = pyogrio.raw.read(path)
    table = dict(zip(meta["fields"], columns, strict=True))
    source = meta["crs"] or "EPSG:4326"
    yield (
        "pyogrio",
        {
            name: (_moved(shapely.from_wkb(geometry), source, crs), area)
            for name, geometry, area in zip(table["expression"], geometries, table["area_m2"], strict=True)
        },
    )
    if find_spec("geopandas"):
        import geopandas

        frame = geopandas.read_file(path).to_crs(crs)
        rows = zip(frame["expression"], frame.geometry, frame["area_m2"], strict=True)
        yield "geopandas", {name: (geometry, area) for name, geometry, area in rows}


def _moved(geometry: Any, source: str, target: str) -> Any:
    return shapely.transform(geometry, lambda xy: np.column_stack(warp(source, target, xy[:, 0], xy[:, 1])))


def _in_pixels(geometry: Any, transform: Affine) -> Any:
    back = ~transform
    return shapely.transform(geometry, lambda xy: np.column_stack(back * (xy[:, 0], xy[:, 1])))


def _outline(mask: Mask) -> Any:
    found = shapes(mask.astype(np.uint8), mask=mask, connectivity=4)
    return shapely.geometry.MultiPolygon([shapely.geometry.shape(geometry) for geometry, _ in found])


def measure() -> list[dict[str, Any]]:
    """One row per coordinate system, file and reader."""
    masks = draw_masks()
    truth = {f"thing {number}": mask for number, mask in enumerate(masks)}
    rows: list[dict[str, Any]] = []
    for place, (crs, transform) in PLACES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tiles.tile(write_scene(folder, crs, transform), folder / "tiles", 256, 96)
            left: list[str] = []
            objects = joined(list(objects_of(labelled(folder / "tiles", masks), TilePlaces(folder / "tiles"), left)))
            areas = {what: ground_area(mask, crs, transform) for what, mask in truth.items()}
            for kind in ("gpkg", "geojson"):
                path = folder / f"objects.{kind}"
                files.write(path, objects, kind)
                for reader, found in outlines(path, crs):
                    off, wrong = [], []
                    for what, (geometry, area) in found.items():
                        off.append(_in_pixels(geometry, transform).hausdorff_distance(_outline(truth[what])))
                        wrong.append(abs(area / areas[what] - 1))
                    rows.append(
                        {"place": place, "file": kind, "reader": reader, "objects": len(found),
                         "off_px": round(max(off), 4), "area_error": round(max(wrong), 5)}
                    )  # fmt: skip
            files.write(folder / "labels.tif", objects, "cog")
            with warnings.catch_warnings(), rasterio.open(folder / "labels.tif") as raster:
                warnings.simplefilter("error")
                same = raster.crs.to_string() == crs and raster.transform.almost_equals(transform, 1e-9)
                differ = int(((raster.read(1) > 0) != np.any(masks, axis=0)).sum())
            rows.append(
                {"place": place, "file": "cog", "reader": "rasterio", "objects": len(objects) if same else 0,
                 "off_px": float(differ > 0), "area_error": 0.0}
            )  # fmt: skip
    return rows


def main() -> None:
    """Print the table, as JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    rows = measure()
    if parser.parse_args().json:
        print(json.dumps(rows))
        return
    print(f"{'':28}{'file':9}{'reader':11}{'objects':>8}{'px off':>9}{'area':>9}")
    for row in rows:
        print(
            f"{row['place']:28}{row['file']:9}{row['reader']:11}{row['objects']:8}"
            f"{row['off_px']:9.4f}{row['area_error']:9.3%}"
        )


if __name__ == "__main__":
    main()
