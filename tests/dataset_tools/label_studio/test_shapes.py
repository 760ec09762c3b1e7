"""What the server writes, the export reads back, and a click finds, is one mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backend.server.editor.labeling_config import LabelingConfig, parse_labeling_config
from backend.server.editor.regions import RegionLookup, RegionWriter, visible_results
from backend.server.protocol import Task
from dataset_tools import masks, metrics
from dataset_tools.errors import DatasetError
from dataset_tools.geometry import Point
from dataset_tools.label_studio.exports import read_tasks, samples_of
from dataset_tools.label_studio.import_rules import ImportRules, Problem
from dataset_tools.label_studio.regions import read_region
from dataset_tools.label_studio.shapes import SHAPES, mask_of, written
from dataset_tools.masks import Mask
from dataset_tools.metrics import iou

DATA = Path(__file__).parents[2] / "data" / "label_studio"
TAGS = {"brushlabels": "BrushLabels", "polygonlabels": "PolygonLabels", "rectanglelabels": "RectangleLabels"}
WRITTEN = [kind for kind, shape in SHAPES.items() if shape.write is not None]

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
any_mask = sizes.flatmap(lambda size: arrays.arrays(np.bool_, size)).filter(lambda mask: bool(mask.any()))


def config_of(kind: str) -> LabelingConfig:
    return parse_labeling_config(
        f'<View><Image name="image" value="$image"/><{TAGS[kind]} name="out" toName="image">'
        f'<Label value="ship"/></{TAGS[kind]}></View>'
    )


def by_click(region: dict[str, Any], kind: str, size: tuple[int, int], x: float, y: float) -> Mask | None:
    task = Task(predictions=[{"result": [region]}])
    found = RegionLookup().under(visible_results(task), Point(x, y), "ship", config_of(kind), size)
    return None if found is None else found.mask


def region_of(kind: str, value: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": "a", "type": kind, "from_name": "out", "to_name": "image", "original_height": size[0],
        "original_width": size[1], "image_rotation": 0, "value": {**value, kind: ["ship"]},
    }  # fmt: skip


def without_holes(mask: Mask) -> Mask:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = mask.astype(np.uint8)
    cv2.drawContours(filled, contours, -1, 1, -1)
    return filled.astype(bool)


@pytest.mark.parametrize("kind", WRITTEN)
@given(mask=any_mask)
def test_what_is_written_is_read_back_and_found_by_a_click(kind: str, mask: Mask) -> None:
    (control,) = config_of(kind).outputs
    regions = RegionWriter("image", "v", polygon_tolerance=0).regions(mask, "ship", [control], score=0.5)
    union = np.zeros_like(mask)
    for region in regions:
        exported = read_region(region, {}).mask
        y, x = np.argwhere(exported)[0]
        found = by_click(region, kind, (mask.shape[0], mask.shape[1]), x + 0.5, y + 0.5)
        assert found is not None
        assert np.array_equal(found, exported)
        union |= exported
    if kind == "rectanglelabels":
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        expected = np.zeros_like(mask)
        expected[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    else:
        expected = mask if kind == "brushlabels" else without_holes(mask)
    assert np.array_equal(union, expected)


def blob(size: int, kind: str, turn: float, ratio: float) -> Mask:
    side = 2 * size + 8
    y, x = np.mgrid[:side, :side] - side / 2
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    radius = size / 2
    shapes: dict[str, Mask] = {
        "ellipse": (u / radius) ** 2 + (v / (radius * ratio)) ** 2 <= 1,
        "building": (abs(u) <= radius) & (abs(v) <= radius * ratio) & ~((u > 0) & (v > 0)),
        "star": np.hypot(u, v) <= radius * (1 + 0.25 * np.sin(5 * np.arctan2(v, u))),
    }
    return shapes[kind]


@pytest.mark.parametrize("kind", ["ellipse", "building", "star"])
@pytest.mark.parametrize(("size", "least"), [(10, 0.95), (30, 0.99), (100, 0.99), (400, 0.99)])
@pytest.mark.parametrize("tolerance", [1.0, 3.0])
def test_a_polygon_gives_the_mask_back(kind: str, size: int, least: float, tolerance: float) -> None:
    for turn in (0.0, 0.4, 1.3):
        mask = blob(size, kind, turn, 0.6)
        values = written(mask, "polygonlabels", tolerance)
        parts = [mask_of("polygonlabels", value, *mask.shape) for value in values]
        assert iou(np.logical_or.reduce(parts), mask) >= least


def test_a_polygon_has_few_corners() -> None:
    (value,) = written(np.pad(np.ones((40, 60), np.bool_), 5), "polygonlabels")
    assert len(value["points"]) == 4
    (value,) = written(blob(400, "ellipse", 0.4, 0.6), "polygonlabels")
    assert len(value["points"]) < 60


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20), (20, 1), (2, 2), (2, 30)])
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_mask_of_one_or_two_pixels_is_a_region(kind: str, height: int, width: int) -> None:
    mask = np.zeros((50, 60), np.bool_)
    mask[7 : 7 + height, 11 : 11 + width] = True
    (value,) = written(mask, kind)
    assert np.array_equal(mask_of(kind, value, 50, 60), mask)


@pytest.mark.parametrize("name", ["box_10x10", "polygon_10x10"])
def test_ten_by_ten_pixels_are_a_hundred(name: str) -> None:
    problems: list[Problem] = []
    (sample,) = samples_of(read_tasks(DATA / f"{name}.json"), ImportRules(), problems)
    assert problems == []
    (mask,) = sample.masks(sample.records[0])
    assert mask.sum() == 100
    assert mask[10:20, 10:20].all()
    region = json.loads((DATA / f"{name}.json").read_text())[0]["annotations"][0]["result"][0]
    clicked = by_click({**region, "from_name": "out"}, region["type"], (48, 64), 15, 15)
    assert clicked is not None
    assert np.array_equal(clicked, mask)


def test_polygons_are_filled_as_pycocotools_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = rng.uniform(-20, 120, (7, 2))
        region = region_of("polygonlabels", {"points": points.tolist()}, (60, 80))
        expected = masks.from_coco([(points * (0.8, 0.6)).reshape(-1).tolist()], 60, 80)
        assert np.array_equal(read_region(region, {}).mask, expected)


@pytest.mark.parametrize(
    ("turn", "rows", "columns"),
    # Clockwise about the corner at x 30, y 20 of an image of 60 x 80 pixels: not square, so percents differ.
    [
        (0, (20, 26), (30, 42)),
        (90, (20, 32), (24, 30)),
        (180, (14, 20), (18, 30)),
        (270, (8, 20), (30, 36)),
        (-90, (8, 20), (30, 36)),
    ],
)
def test_a_rectangle_turns_about_its_upper_left_corner(
    turn: float, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    value = {"x": 37.5, "y": 100 / 3, "width": 15, "height": 10, "rotation": turn}
    expected = np.zeros((60, 80), np.bool_)
    expected[slice(*rows), slice(*columns)] = True
    region = region_of("rectanglelabels", value, (60, 80))
    assert np.array_equal(read_region(region, {}).mask, expected)
    found = by_click(region, "rectanglelabels", (60, 80), sum(columns) / 2, sum(rows) / 2)
    assert found is not None
    assert np.array_equal(found, expected)


def test_an_ellipse_is_read() -> None:
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 10, "rotation": 90}
    mask = read_region(region_of("ellipselabels", value, (100, 200)), {}).mask
    y, x = np.mgrid[:100, :200] + 0.5
    assert iou(mask, ((x - 100) / 10) ** 2 + ((y - 50) / 50) ** 2 <= 1) > 0.98
    with pytest.raises(DatasetError, match="not written"):
        written(mask, "ellipselabels")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("polygonlabels", {"points": [[0, 0], [1e8, 0], [1e8, 1e8], [0, 1e8]]}),
        ("polygonlabels", {"points": [[0, 0], [float("nan"), 0], [1, 1]]}),
        ("polygonlabels", {"points": [[0, 0], [900, 900]] * 40_000}),
        ("polygonlabels", {"points": [[0, 0]] * 200_000}),
        ("polygonlabels", {"points": [[0, 0], [1, 1]]}),
        ("polygonlabels", {"points": 7}),
        ("polygonlabels", {}),
        ("rectanglelabels", {"x": 0, "y": 0, "width": 1e300, "height": 1}),
        ("rectanglelabels", {"x": 0, "y": None, "width": 1, "height": 1}),
        ("ellipselabels", {"x": 0, "y": 0, "radiusX": 1e12, "radiusY": 1}),
        ("brushlabels", {"rle": 6_000_000_000}),
        ("brushlabels", {"rle": "text"}),
        ("keypointlabels", {"x": 1, "y": 1}),
    ],
)
def test_unusable_values_are_refused_with_a_reason(kind: str, value: dict[str, Any]) -> None:
    region = region_of(kind, value, (3000, 4000))
    with pytest.raises(DatasetError):
        mask_of(kind, region["value"], 3000, 4000)
    if kind in TAGS:
        assert by_click(region, kind, (3000, 4000), 5, 5) is None


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 110, 160])
def test_a_turned_rectangle_is_read_as_the_mask_it_was_made_of(angle: float) -> None:
    height, width = 120, 200
    turn = np.radians(angle)
    corners = np.array([(-40, -12), (40, -12), (40, 12), (-40, 12)]) @ np.array(
        ((np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn)))
    ) + (100, 60)
    mask = masks.from_coco([corners.reshape(-1).tolist()], height, width)
    (value,) = written(mask, "rectanglelabels", rotated=True)
    assert -45.1 <= value["rotation"] <= 45.1
    again = mask_of("rectanglelabels", value, height, width)
    assert metrics.iou(again, mask) > 0.93
    assert again.sum() < 1.08 * mask.sum()
