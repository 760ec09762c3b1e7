"""What the editor was seen to send (tests/data/captures) becomes prompts in pixels, one group per object."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from backend.server.editor.labeling_config import parse_labeling_config
from backend.server.editor.prompts import EditorPrompts, TaskQuery, default_category, read_prompts
from backend.server.protocol import PredictRequest, validate
from dataset_tools import brush_rle
from dataset_tools.categories import canonical, category_name
from dataset_tools.errors import ImageError
from dataset_tools.geometry import Box, Point
from tests.conftest import REPOSITORY

CAPTURES = REPOSITORY / "tests" / "data" / "captures"


def captured(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((CAPTURES / f"{name}.json").read_text())["request_body"]
    return body


def prompts(body: dict[str, Any]) -> EditorPrompts:
    request = validate(PredictRequest, body)
    assert request.context is not None
    config = parse_labeling_config(request.label_config)
    return read_prompts(request.context.result, request.tasks[0], config, (600, 800))


def only_clicks(found: EditorPrompts) -> list[tuple[float, float, bool]]:
    (single,) = found.objects
    return [(round(click.point.x, 1), round(click.point.y, 1), click.positive) for click in single.clicks]


@pytest.mark.parametrize(
    ("name", "clicks"),
    [
        ("interactive_keypoint_positive", [(240.0, 144.3, True)]),
        ("interactive_keypoints_two_positive", [(240.0, 144.3, True), (360.0, 144.3, True)]),
        ("interactive_keypoint_negative", [(240.0, 144.3, True), (360.0, 144.3, True), (300.0, 180.0, False)]),
        ("interactive_label_stream", [(240.4, 300.0, True)]),
        ("interactive_other_label_only", [(639.6, 120.0, True)]),
        # The first click comes without a sign; the draft has it, positive, under the same id.
        ("interactive_reloaded_draft_point_without_is_positive", [(360.0, 144.3, True), (240.0, 144.3, True)]),
    ],
)
def test_captured_clicks(name: str, clicks: list[tuple[float, float, bool]]) -> None:
    assert only_clicks(prompts(captured(name))) == clicks


def test_a_captured_box() -> None:
    (single,) = prompts(captured("interactive_rectangle")).objects
    assert single.label == "building"
    assert single.clicks == ()
    assert single.box is not None
    assert np.allclose(single.box, (176.17, 60, 399.57, 240), atol=0.01)


def test_two_captured_boxes_are_two_objects() -> None:
    assert len(prompts(captured("interactive_two_rectangles")).objects) == 2


def test_a_turned_box_becomes_the_upright_box_around_it() -> None:
    (single,) = prompts(captured("interactive_rotated_rectangle")).objects
    assert single.box is not None
    # width 133.7, height 71.3 px, turned by 26.57 degrees about (240.5, 360.1)
    cos, sin = 0.8944, 0.4472
    assert np.allclose(
        single.box, (240.5 - 71.33 * sin, 360.12, 240.5 + 133.75 * cos, 360.12 + 133.75 * sin + 71.33 * cos), atol=0.1
    )


@pytest.mark.parametrize(
    ("name", "text"), [("interactive_textarea", "the second red roof"), ("interactive_textarea_with_choices", "roof")]
)
def test_captured_texts(name: str, text: str) -> None:
    found = prompts(captured(name))
    assert found.texts == (text,)
    assert found.objects == ()


def test_whole_image_controls_may_come_anywhere() -> None:
    body = captured("interactive_textarea_with_choices")
    for order in itertools.permutations(body["params"]["context"]["result"]):
        body["params"]["context"]["result"] = list(order)
        assert prompts(body).texts == ("roof",)


def test_a_click_inside_a_box_of_the_draft_belongs_to_it() -> None:
    found = prompts(captured("interactive_with_draft"))
    (single,) = found.objects
    assert single.box is not None
    assert single.box.contains(single.clicks[0].point)


def test_the_drafts_sign_wins_over_a_missing_one() -> None:
    body = captured("interactive_reloaded_draft_point_without_is_positive")
    for item in body["tasks"][0]["drafts"][0]["result"]:
        if item["id"] == "7CiNyGV92g":
            item["is_positive"] = False
    assert only_clicks(prompts(body))[0][2] is False


@pytest.mark.parametrize(("sign", "positive"), [(0, False), (1, True), (False, False), (True, True)])
def test_a_sign_may_be_a_number(sign: object, positive: bool) -> None:
    body = captured("interactive_keypoint_positive")
    body["params"]["context"]["result"][0]["is_positive"] = sign
    assert only_clicks(prompts(body))[0][2] is positive


def test_prompts_on_a_turned_view_are_refused() -> None:
    body = captured("interactive_keypoint_positive")
    body["params"]["context"]["result"][0]["image_rotation"] = 90
    with pytest.raises(ImageError, match=r"turned by 90 degrees.*turn the image back"):
        prompts(body)


@pytest.mark.parametrize("sign", [None, "false"])
def test_a_strange_sign_is_never_taken_as_negative(sign: object) -> None:
    body = captured("interactive_keypoint_positive")
    body["params"]["context"]["result"][0]["is_positive"] = sign
    assert only_clicks(prompts(body))[0][2] is True


def item(kind: str, label: str, **value: Any) -> dict[str, Any]:
    name = {"keypointlabels": "point", "rectanglelabels": "box", "brushlabels": "mask"}[kind]
    return {"type": kind, "from_name": name, "to_name": "image", "id": "x", "value": {**value, kind: [label]}}


def with_items(*items: dict[str, Any]) -> EditorPrompts:
    body = captured("interactive_keypoint_positive")
    body["params"]["context"]["result"] = list(items)
    return prompts(body)


def test_two_labels_are_two_objects() -> None:
    found = with_items(item("keypointlabels", "ship", x=10, y=10), item("keypointlabels", "road", x=20, y=20))
    assert [(single.label, len(single.clicks)) for single in found.objects] == [("ship", 1), ("road", 1)]


def test_clicks_inside_a_box_of_their_label_belong_to_it() -> None:
    found = with_items(
        item("keypointlabels", "ship", x=15, y=15),
        item("keypointlabels", "ship", x=80, y=80),
        item("keypointlabels", "road", x=15, y=15),
        item("rectanglelabels", "ship", x=10, y=10, width=20, height=20),
    )
    assert [(single.label, single.box is not None, len(single.clicks)) for single in found.objects] == [
        ("ship", True, 1),
        ("ship", False, 1),
        ("road", False, 1),
    ]


def test_a_stroke_is_clicks_on_the_stroke() -> None:
    stroke = np.zeros((600, 800), np.bool_)
    stroke[100:110, 100:300] = True
    (single,) = with_items(item("brushlabels", "ship", format="rle", rle=brush_rle.encode(stroke))).objects
    assert len(single.clicks) == 3
    assert all(stroke[int(click.point.y), int(click.point.x)] and click.positive for click in single.clicks)


def test_a_click_on_the_very_edge_stays_inside() -> None:
    (single,) = with_items(item("keypointlabels", "ship", x=100, y=100.0001)).objects
    assert single.clicks[0].point == Point(799.0, 599.0)


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "keypointlabels", "value": {"x": None, "y": 3, "keypointlabels": ["ship"]}},
        {"type": "keypointlabels", "value": {"x": 3, "y": 3}},
        {"type": "keypointlabels", "value": None},
        {"type": "rectanglelabels", "value": {"x": 3, "y": 3, "width": 0, "height": 0, "rectanglelabels": ["ship"]}},
        {"type": "brushlabels", "value": {"rle": [1, 2], "brushlabels": ["ship"]}},
        {"type": "brushlabels", "value": {"brushlabels": ["ship"]}},
        {"type": "textarea", "from_name": "prompt", "value": {"text": [" "]}},
        "text",
        None,
    ],
)
def test_what_cannot_be_a_prompt_is_left_out(broken: Any) -> None:
    found = with_items(broken, item("keypointlabels", "ship", x=15, y=15))
    assert [len(single.clicks) for single in found.objects] == [1]
    assert found.texts == ()


def test_a_box_reaching_over_the_image_is_cut() -> None:
    (single,) = with_items(item("rectanglelabels", "ship", x=90, y=90, width=30, height=30)).objects
    assert single.box == Box(720, 540, 800, 600)


@pytest.mark.parametrize("label", ["solar panel", "Solar_Panel", "zorbleflux", "太陽光パネル"])
def test_the_words_name_a_new_word_among_the_labels(label: str) -> None:
    assert canonical(label) is None, f"{label} has become a canonical category: test with another new word"
    config = parse_labeling_config(
        f'''<View><Image name="image" value="$image"/><BrushLabels name="label" toName="image">
        <Label value="ship"/><Label value="{label}"/></BrushLabels></View>'''
    )
    name = category_name(label)
    query = TaskQuery(1, "/a.png", (f"all the {name}",), None)
    assert default_category(query, config, query.expressions[0]) == name
    assert config.label_for(name) == label
    assert default_category(query, config, "the ship") is None
