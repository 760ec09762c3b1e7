from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.pipeline.segmentation.refinement import spread_points
from backend.pipeline.types import Mask
from backend.server.editor.labeling_config import parse_labeling_config
from backend.server.editor.regions import FoundRegion, RegionLookup, visible_results
from backend.server.protocol import Task
from dataset_tools import brush_rle
from dataset_tools.geometry import Point
from tests.server.conftest import LABEL_CONFIG

SIZE = (60, 80)
CONFIG = parse_labeling_config(LABEL_CONFIG)
MIXED = parse_labeling_config(
    '<View><Image name="image" value="$image"/>'
    '<PolygonLabels name="outline" toName="image"><Label value="ship"/></PolygonLabels>'
    '<RectangleLabels name="frame" toName="image"><Label value="ship"/></RectangleLabels></View>'
)


def block(x: int, y: int, side: int = 20) -> Mask:
    mask = np.zeros(SIZE, np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def brush(identity: str, mask: Mask, label: str = "ship") -> dict[str, Any]:
    value = {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": [label]}
    return {"id": identity, "type": "brushlabels", "from_name": "mask", "to_name": "image", "value": value}


def stored(*regions: Any, updated: str = "2026-11-23T09:00:00Z", **more: Any) -> dict[str, Any]:
    return {"result": list(regions), "updated_at": updated, **more}


def under(task: Task, x: float, y: float, label: str = "ship") -> FoundRegion | None:
    return RegionLookup().under(visible_results(task), Point(x, y), label, CONFIG, SIZE)


def identity(found: FoundRegion | None) -> str | None:
    return None if found is None else found.id


def test_the_region_under_the_click_is_found_with_its_mask() -> None:
    task = Task(predictions=[stored(brush("a", block(0, 0)), brush("b", block(40, 30)))])
    found = under(task, 45.9, 31.0)
    assert found is not None
    assert found.id == "b"
    assert np.array_equal(found.mask, block(40, 30))
    assert under(task, 30, 30) is None


def test_another_label_is_another_object() -> None:
    task = Task(predictions=[stored(brush("a", block(0, 0), "building"))])
    assert under(task, 5, 5) is None
    assert identity(under(task, 5, 5, "building")) == "a"


def test_the_topmost_region_wins() -> None:
    task = Task(predictions=[stored(brush("below", block(0, 0)), brush("above", block(10, 10)))])
    assert identity(under(task, 15, 15)) == "above"


def test_the_newest_draft_is_what_the_annotator_sees() -> None:
    task = Task(
        drafts=[
            stored(brush("old", block(0, 0)), updated="2026-11-23T09:00:00Z"),
            stored(brush("new", block(40, 30)), updated="2026-11-23T09:05:00Z"),
        ],
        annotations=[stored(brush("annotation", block(0, 0)))],
        predictions=[stored(brush("prediction", block(0, 0)))],
    )
    assert identity(under(task, 45, 35)) == "new"
    assert under(task, 5, 5) is None  # deleted since


def test_annotations_come_before_predictions_and_skipped_ones_do_not_count() -> None:
    task = Task(
        annotations=[stored(brush("skipped", block(0, 0)), was_cancelled=True), stored(brush("kept", block(0, 0)))],
        predictions=[stored(brush("prediction", block(0, 0))), stored(brush("other", block(40, 30)))],
    )
    assert identity(under(task, 5, 5)) == "kept"
    assert identity(under(task, 45, 35)) == "other"


def test_a_region_of_another_annotator_is_not_refined() -> None:
    task = Task(
        annotations=[
            stored(brush("hers", block(0, 0)), completed_by=1),
            stored(brush("his", block(20, 20)), completed_by=2, updated="2026-11-23T10:00:00Z"),
        ],
        predictions=[stored(brush("prediction", block(40, 30)))],
    )
    assert under(task, 25, 25) is None
    assert identity(under(task, 45, 35)) == "prediction"
    alone = task.model_copy(update={"annotations": task.annotations[:1]})
    assert identity(under(alone, 5, 5)) == "hers"
    mine = task.model_copy(update={"drafts": [stored(brush("mine", block(0, 0)))]})
    assert identity(under(mine, 5, 5)) == "mine"


def test_polygons_and_plain_boxes_are_found_too() -> None:
    outline = {
        "id": "p",
        "type": "polygonlabels",
        "from_name": "outline",
        "value": {"points": [[0, 0], [25, 0], [25, 50], [0, 50]], "polygonlabels": ["ship"]},
    }
    frame = {
        "id": "r",
        "type": "rectanglelabels",
        "from_name": "frame",
        "value": {"x": 50, "y": 50, "width": 25, "height": 50, "rotation": 0, "rectanglelabels": ["ship"]},
    }
    task = Task(predictions=[stored(outline, frame)])
    found = RegionLookup().under(visible_results(task), Point(5, 5), "ship", MIXED, SIZE)
    assert found is not None
    assert (found.id, found.control.name, int(found.mask.sum())) == ("p", "outline", 600)
    found = RegionLookup().under(visible_results(task), Point(45, 35), "ship", MIXED, SIZE)
    assert found is not None
    assert (found.id, int(found.mask.sum())) == ("r", 600)


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        "text",
        {"id": "x"},
        {**brush("x", block(0, 0)), "value": {"brushlabels": ["ship"]}},
        {**brush("x", block(0, 0)), "value": {"brushlabels": ["ship"], "rle": [1, 2, 3]}},
        {**brush("x", block(0, 0)), "value": {"brushlabels": ["ship"], "rle": "text"}},
        {**brush("x", block(0, 0)), "from_name": "elsewhere"},
        {**brush("x", block(0, 0)), "type": "keypointlabels"},  # what accepting adds with "keep label selected"
        brush("x", np.ones((30, 40), np.bool_)),  # of another image size
    ],
)
def test_damaged_and_foreign_regions_are_passed_over(damaged: Any) -> None:
    task = Task(predictions=[stored(brush("good", block(0, 0)), damaged)])
    assert identity(under(task, 5, 5)) == "good"


def test_smart_boxes_are_prompts_not_regions() -> None:
    box = {
        "id": "box",
        "type": "rectanglelabels",
        "from_name": "box",
        "value": {"x": 0, "y": 0, "width": 100, "height": 100, "rectanglelabels": ["ship"]},
    }
    assert under(Task(drafts=[stored(box)]), 5, 5) is None


def test_asking_again_gives_the_same() -> None:
    lookup, task = RegionLookup(), Task(predictions=[stored(brush("a", block(0, 0)))])
    first = lookup.under(visible_results(task), Point(5, 5), "ship", CONFIG, SIZE)
    again = lookup.under(visible_results(task), Point(5, 5), "ship", CONFIG, SIZE)
    assert first is not None
    assert again is not None
    assert (first.id, first.digest) == (again.id, again.digest)
    assert np.array_equal(first.mask, again.mask)
    assert lookup.under(visible_results(task), Point(50, 50), "ship", CONFIG, SIZE) is None


def test_a_region_holding_most_of_some_points_is_found() -> None:
    task = Task(predictions=[stored(brush("a", block(0, 0, 20)), brush("b", block(40, 30)))])

    def holding(mask: Mask) -> str | None:
        return identity(RegionLookup().holding(visible_results(task), spread_points(mask), "ship", CONFIG, SIZE))

    assert holding(block(2, 2, 22)) == "a"  # the region and a part that is missing from it
    assert holding(block(12, 12, 30)) is None  # a larger thing that reaches into it
    assert holding(block(38, 30)) == "b"


def test_the_nearest_region_is_refined_by_a_click_beside_it() -> None:
    boxed = {
        "id": "poly",
        "type": "polygonlabels",
        "from_name": "outline",
        "value": {"points": [[0, 50], [25, 50], [25, 100], [0, 100]], "polygonlabels": ["ship"]},
    }
    task = Task(
        predictions=[stored(brush("a", block(0, 0)), brush("b", block(26, 0)), brush("tug", block(40, 30), "tug"))]
    )

    def near(x: float, y: float, lookup: RegionLookup) -> str | None:
        return identity(lookup.near(visible_results(task), Point(x, y), "ship", CONFIG, SIZE))

    for lookup in (RegionLookup(), RegionLookup()):
        for _ in range(2):  # what is kept gives the same
            assert near(22.5, 10.5, lookup) == "a"
            assert near(24.5, 10.5, lookup) == "b"
            assert near(49.5, 10.5, lookup) == "b"
            assert near(52.5, 10.5, lookup) is None
            assert near(38.5, 40.5, lookup) is None  # another label
    task = Task(drafts=[stored(boxed)])
    assert identity(RegionLookup().near(visible_results(task), Point(22.5, 40.5), "ship", MIXED, SIZE)) == "poly"
