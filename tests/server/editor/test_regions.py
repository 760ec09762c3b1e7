from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from label_studio_sdk.label_interface import LabelInterface

from backend.pipeline.types import Mask
from backend.server.editor.labeling_config import Control, Label
from backend.server.editor.regions import RegionWriter
from backend.server.protocol import Prediction
from dataset_tools import brush_rle
from dataset_tools.geometry import Box

SHIP = (Label("ship", ("ship",)),)
BRUSH = Control("BrushLabels", "mask", SHIP, smart=False, smart_only=False)
POLYGON = Control("PolygonLabels", "outline", SHIP, smart=False, smart_only=False)
BOX = Control("RectangleLabels", "box", SHIP, smart=False, smart_only=False)
WRITER = RegionWriter("image", "compact-01234567")
CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="ship"/></BrushLabels>
<PolygonLabels name="outline" toName="image"><Label value="ship"/></PolygonLabels>
<RectangleLabels name="box" toName="image"><Label value="ship"/></RectangleLabels></View>"""

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
any_mask = sizes.flatmap(lambda size: arrays.arrays(np.bool_, size))


@given(any_mask)
def test_a_brush_region_holds_the_mask_exactly(mask: Mask) -> None:
    regions = WRITER.regions(mask, "ship", [BRUSH], score=0.5)
    if not mask.any():
        assert regions == []
        return
    (region,) = regions
    assert (region["original_height"], region["original_width"]) == mask.shape
    assert np.array_equal(brush_rle.decode(region["value"]["rle"], *mask.shape), mask)


@given(any_mask.filter(lambda mask: bool(mask.any())))
def test_a_box_region_holds_the_masks_box(mask: Mask) -> None:
    height, width = mask.shape
    value = WRITER.regions(mask, "ship", [BOX], score=0.5)[0]["value"]
    found = Box(
        value["x"] * width / 100,
        value["y"] * height / 100,
        (value["x"] + value["width"]) * width / 100,
        (value["y"] + value["height"]) * height / 100,
    )
    assert np.allclose(found, Box.of_mask(mask))


@given(any_mask.filter(lambda mask: bool(mask.any())))
def test_label_studios_own_validation_takes_every_region(mask: Mask) -> None:
    regions = WRITER.regions(mask, "ship", [BRUSH, POLYGON, BOX], score=0.5)
    prediction: Prediction = {"result": regions, "score": 0.5, "model_version": "v"}
    interface = LabelInterface(CONFIG)
    assert interface.validate_prediction(json.loads(json.dumps(prediction)), return_errors=True) == []
    assert len({region["id"] for region in regions}) == len(regions)


def test_every_control_gets_the_object_and_a_polygon_control_each_part() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[2:12, 2:12] = mask[20:38, 20:38] = True
    kinds = [region["type"] for region in WRITER.regions(mask, "ship", [BRUSH, POLYGON, BOX], score=0.5)]
    assert kinds == ["brushlabels", "polygonlabels", "polygonlabels", "rectanglelabels"]


def test_a_refinement_keeps_the_id_and_says_where_it_comes_from() -> None:
    region = WRITER.regions(np.ones((4, 4), np.bool_), "ship", [BRUSH], score=0.8766, clicks=2, region_id="19051e04eb")[
        0
    ]
    assert region["id"] == "19051e04eb"
    assert region["meta"] == {"text": ["pslg model=compact-01234567 clicks=2 score=0.877"]}


def test_a_large_code_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).random((200, 200)) > 0.5
    writer = RegionWriter("image", "v", rle_warning_bytes=10_000)
    with caplog.at_level(logging.WARNING):
        writer.regions(noise, "ship", [BRUSH], score=0.5)
    assert "PSLG_SPECK_AREA" in caplog.text


def test_a_region_carries_the_words_that_it_was_found_for() -> None:
    mask = np.ones((4, 4), np.bool_)
    (found,) = WRITER.regions(mask, "ship", [BRUSH], score=0.5, expression=" the ship\n on the left ")
    assert found["meta"]["text"][1:] == ["expression: the ship on the left"]
    assert len(WRITER.regions(mask, "ship", [BRUSH], score=0.5, expression=" ")[0]["meta"]["text"]) == 1


def test_a_control_that_is_rotated_gets_the_tight_box() -> None:
    mask = np.eye(40, dtype=bool) | np.eye(40, k=1, dtype=bool) | np.eye(40, k=-1, dtype=bool)
    (upright,) = WRITER.regions(mask, "ship", [BOX], score=0.5)
    (tight,) = WRITER.regions(mask, "ship", [replace(BOX, rotated=True)], score=0.5)
    assert upright["value"]["rotation"] == 0
    assert abs(tight["value"]["rotation"]) == pytest.approx(45, abs=1)
    areas = [float(one["value"]["width"] * one["value"]["height"]) for one in (upright, tight)]
    assert areas[1] < 0.2 * areas[0]


def test_a_region_says_which_words_were_passed_over() -> None:
    (region,) = WRITER.regions(
        np.ones((4, 4), bool), "ship", [BRUSH], score=0.5, expression="the ship with faded lines"
    )
    assert region["meta"]["text"][1:] == ["expression: the ship with faded lines", "unread: faded; lines"]


def test_polygons_leave_out_parts_that_are_tiny_beside_the_largest() -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[5:45, 5:45] = mask[60:80, 60:80] = True
    mask[90:93, 90:94] = True  # 12 of 1600 pixels
    assert len(WRITER.regions(mask, "ship", [POLYGON], score=0.5)) == 2
    (brush,) = WRITER.regions(mask, "ship", [BRUSH], score=0.5)
    assert np.array_equal(brush_rle.decode(brush["value"]["rle"], 100, 100), mask)
