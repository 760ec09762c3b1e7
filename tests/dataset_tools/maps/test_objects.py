"""Objects in tiles become objects on the map: joined, placed, measured, and read back by a GIS's own readers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from PIL import Image
from rasterio.warp import transform as warp
from rasterio.warp import transform_geom

from dataset_tools.cli import dataset as dataset_command
from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from dataset_tools.maps import files, tiles
from dataset_tools.maps.objects import MapObject, TilePlaces, joined, objects_of
from dataset_tools.maps.polygons import area_m2, polygon
from dataset_tools.records import Provenance, Record, Sample, SourceImage, target_of
from tests.dataset_tools.maps.geotiffs import PLACES, noise, write

WIDTH, HEIGHT = 260, 180


def things() -> list[npt.NDArray[np.bool_]]:
    """A ring across the cuts, two neighbours that touch, one in a corner, one in the overlap alone."""
    masks: list[npt.NDArray[np.bool_]] = [np.zeros((HEIGHT, WIDTH), bool) for _ in range(5)]
    masks[0][60:130, 70:170] = True
    masks[0][80:110, 100:140] = False
    masks[1][10:30, 10:40] = True
    masks[2][10:30, 40:70] = True
    masks[3][150:180, 230:260] = True
    masks[4][20:28, 82:92] = True
    return masks


def samples(tmp_path: Path, place: str, prefix: str = "") -> list[Sample]:
    """What annotators would have made of the tiles of a scene with ``things``."""
    path = write(tmp_path / f"{place}.tif", noise(3, HEIGHT, WIDTH), PLACES[place])
    tiles.tile(path, tmp_path / "tiles", 100, 24)
    result = []
    for name, line in tiles.read_index(tmp_path / "tiles").items():
        x, y, w, h = line["window"]
        records = []
        for number, mask in enumerate(things()):
            part = mask[y : y + h, x : x + w]
            if part.any():
                origin = Provenance(task=number, model_version="compact-1", origin="prediction", score=0.5)
                records.append(Record(f"thing {number}", "ship", (target_of(part),), provenance=origin))
        result.append(Sample(SourceImage(prefix + name, w, h), tuple(records)))
    return result


@pytest.mark.parametrize("place", list(PLACES))
def test_objects_come_back_where_they_were(tmp_path: Path, place: str) -> None:
    left_out: list[str] = []
    parts = list(objects_of(samples(tmp_path, place, "0123abcd-"), TilePlaces(tmp_path / "tiles"), left_out))
    whole = sorted(joined(parts), key=lambda item: item.expression)
    assert left_out == []
    assert len(parts) > len(whole) == 5
    crs, transform = PLACES[place]
    for item, mask in zip(whole, things(), strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert (item.x, item.y) == (columns[0], rows[0])
        assert np.array_equal(item.mask, mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        outline = polygon(item)
        center = transform * ((columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2)
        half = 0.5 * item.place.reference.pixel[0]
        assert outline.centroid.distance(shapely.Point(center)) < half
        assert outline.area == pytest.approx(mask.sum() * abs(transform.determinant), rel=1e-6)
        # Square metres on the ground: by the corners' positions on the ellipsoid, not by the map's units.
        found = area_m2(outline, crs)
        local = transform_geom(crs, "EPSG:32633", shapely.geometry.mapping(outline))
        assert found == pytest.approx(shapely.geometry.shape(local).area, rel=0.01)
    assert whole[0].expression == "thing 0"
    assert len(polygon(whole[0]).geoms[0].interiors) == 1


def test_neighbours_that_touch_and_parts_without_overlap_stay_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "utm.tif", noise(3, HEIGHT, WIDTH), PLACES["utm"])
    tiles.tile(path, tmp_path / "tiles", 130, 0)
    found = []
    for name, line in tiles.read_index(tmp_path / "tiles").items():
        x, _, w, h = line["window"]
        mask = np.zeros((h, w), bool)
        mask[40:60, -20 if x == 0 else 0 : None if x == 0 else 20] = True
        found.append(Sample(SourceImage(name, w, h), (Record("it", "ship", (target_of(mask),)),)))
    parts = list(objects_of(found, TilePlaces(tmp_path / "tiles"), []))
    assert len(joined(parts)) == len(parts)


def test_other_categories_are_not_joined(tmp_path: Path) -> None:
    parts = list(objects_of(samples(tmp_path, "utm"), TilePlaces(tmp_path / "tiles"), []))
    other = [MapObject(**{**vars(part), "category": "harbor"}) for part in parts]
    assert len(joined(parts + other)) == 10


def test_one_object_under_two_expressions_is_one(tmp_path: Path) -> None:
    mask = np.zeros((50, 60), bool)
    mask[5:20, 5:30] = True
    records = tuple(Record(words, "ship", (target_of(mask),)) for words in ("the ship", "the only ship"))
    extra = {"crs": "EPSG:32633", "transform": [0.5, 0, 5e5, 0, -0.5, 4e6]}
    (found,) = objects_of([Sample(SourceImage("a.png", 60, 50, extra=extra), records)], TilePlaces(), [])
    assert found.expression == "the ship; the only ship"


def test_what_cannot_be_placed_is_said(tmp_path: Path) -> None:
    left_out: list[str] = []
    plain = Sample(SourceImage("a.png", 60, 50), (Record("it", "ship", (target_of(np.ones((50, 60), bool)),)),))
    assert list(objects_of([plain], TilePlaces(), left_out)) == []
    assert "a.png" in left_out[0]
    assert "--tiles" in left_out[0]
    tile = samples(tmp_path, "utm")[0].image.file_name
    wrong = Sample(SourceImage(tile, 60, 50), plain.records)
    assert list(objects_of([wrong], TilePlaces(tmp_path / "tiles"), left_out)) == []
    assert "these are not the tiles that were labelled" in left_out[1]
    with pytest.raises(DatasetError, match=r"no tiles\.jsonl"):
        TilePlaces(tmp_path)


@pytest.mark.parametrize("place", list(PLACES))
def test_a_gis_reads_back_what_was_written(tmp_path: Path, place: str) -> None:
    objects = joined(list(objects_of(samples(tmp_path, place), TilePlaces(tmp_path / "tiles"), [])))
    crs, transform = PLACES[place]
    files.write(tmp_path / "a.gpkg", objects, "gpkg")
    info = pyogrio.read_info(tmp_path / "a.gpkg")
    assert (info["crs"], info["geometry_type"], info["features"]) == (crs, "MultiPolygon", 5)
    meta, _, geometries, columns = pyogrio.raw.read(tmp_path / "a.gpkg")
    table = dict(zip(meta["fields"], columns, strict=True))
    assert sorted(table["expression"]) == [f"thing {number}" for number in range(5)]
    assert set(table["origin"]) == {"prediction"}
    assert shapely.from_wkb(geometries[0]).equals(polygon(objects[0]))

    files.write(tmp_path / "a.geojson", objects, "geojson")
    feature = json.loads((tmp_path / "a.geojson").read_text())["features"][0]
    assert feature["properties"]["area_m2"] == pytest.approx(table["area_m2"][0])
    assert "crs" not in json.loads((tmp_path / "a.geojson").read_text())
    ring = np.array(feature["geometry"]["coordinates"][0][0])
    assert shapely.LinearRing(ring).is_ccw
    back = np.column_stack(warp("EPSG:4326", crs, ring[:, 0], ring[:, 1]))
    pixels = np.array([~transform * tuple(position) for position in back])
    edges = np.abs(pixels - np.round(pixels)).max()
    assert edges < 0.5

    files.write(tmp_path / "a.tif", objects, "cog")
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.crs.to_string() == crs
        assert raster.transform.almost_equals(transform, 1e-9)
        assert raster.tags()["CATEGORY_1"] == "ship"
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert np.array_equal(raster.read(1) > 0, np.any(things(), axis=0))


def test_simplified_outlines_stay_within_the_tolerance(tmp_path: Path) -> None:
    rows, columns = np.ogrid[:120, :120]
    disc = (rows - 60) ** 2 + (columns - 60) ** 2 < 55**2
    extra = {"crs": "EPSG:32633", "transform": [0.5, 0, 5e5, 0, -0.5, 4e6]}
    sample = Sample(SourceImage("a.png", 120, 120, extra=extra), (Record("it", "storagetank", (target_of(disc),)),))
    (item,) = objects_of([sample], TilePlaces(), [])
    exact, simple = polygon(item), polygon(item, 1.0)
    assert len(simple.geoms[0].exterior.coords) < 0.2 * len(exact.geoms[0].exterior.coords)
    assert exact.boundary.hausdorff_distance(simple.boundary) <= 1.0 + 1e-6
    assert simple.is_valid


def test_across_the_antimeridian_the_parts_are_cut(tmp_path: Path) -> None:
    extra = {"crs": "EPSG:32601", "transform": [10, 0, 166_000, 0, -10, 10_000]}
    mask = np.ones((40, 400), bool)
    sample = Sample(SourceImage("a.png", 400, 40, extra=extra), (Record("it", "ship", (target_of(mask),)),))
    files.write(tmp_path / "a.geojson", list(objects_of([sample], TilePlaces(), [])), "geojson")
    geometry = json.loads((tmp_path / "a.geojson").read_text())["features"][0]["geometry"]
    found = shapely.geometry.shape(geometry)
    assert len(found.geoms) == 2
    assert all(part.bounds[2] - part.bounds[0] < 1 for part in found.geoms)


def test_the_command_writes_a_map_and_says_what_it_left_out(tmp_path: Path) -> None:
    placed = samples(tmp_path, "utm")
    lost = Sample(replace(placed[0].image, file_name="else.png"), placed[0].records)
    (tmp_path / "images").mkdir()
    located = []
    for sample in [*placed, lost]:
        path = tmp_path / "images" / sample.image.file_name
        Image.new("RGB", (sample.image.width, sample.image.height)).save(path)
        located.append(replace(sample, image=replace(sample.image, location=str(path))))
    export(located, tmp_path / "set", "coco_jsonl")
    command = ["export", str(tmp_path / "set"), str(tmp_path / "out.gpkg"), "--format", "gpkg"]
    result = CliRunner().invoke(dataset_command, [*command, "--tiles", str(tmp_path / "tiles")])
    assert result.exit_code == 2, result.output
    assert "5 objects" in result.output
    assert "else.png" in result.output
    assert pyogrio.read_info(tmp_path / "out.gpkg")["features"] == 5
