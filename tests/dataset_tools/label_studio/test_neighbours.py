"""Neighbours of the inputs in ``test_cases``: words, images and shapes in other mixtures, and what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dataset_tools import brush_rle
from dataset_tools.checks.validate import check_sample
from dataset_tools.label_studio.exports import samples_of
from dataset_tools.label_studio.import_rules import ImportRules, Problem
from dataset_tools.label_studio.notes import NOTE
from dataset_tools.records import Sample
from tests.conftest import REPOSITORY

CASES = REPOSITORY / "tests/data/cases"
A, B = (f"/data/upload/1/abcdef12-{name}.png" for name in "ab")
WIDTH, HEIGHT = 64, 48


def region(kind: str, value: dict[str, Any], label: str = "ship", *lines: str, **more: Any) -> dict[str, Any]:
    names = {"brushlabels": "mask", "polygonlabels": "poly", "rectanglelabels": "box", "ellipselabels": "round"}
    return {
        "id": f"{kind}{value!s:.80}", "type": kind, "from_name": names[kind], "to_name": "image", "origin": "manual",
        "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "value": {**value, kind: [label]},
        **({"meta": {"text": list(lines)}} if lines else {}), **more,
    }  # fmt: skip


def brush(x0: int, y0: int, x1: int, y1: int, *lines: str, label: str = "ship", **more: Any) -> dict[str, Any]:
    mask: npt.NDArray[np.bool_] = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return region("brushlabels", {"format": "rle", "rle": brush_rle.encode(mask)}, label, *lines, **more)


def polygon(x0: int, y0: int, x1: int, y1: int, label: str = "ship") -> dict[str, Any]:
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return region("polygonlabels", {"points": [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners]}, label)


def box(x0: int, y0: int, x1: int, y1: int, label: str = "ship") -> dict[str, Any]:
    place = {"x": 100 * x0 / WIDTH, "y": 100 * y0 / HEIGHT}
    size = {"width": 100 * (x1 - x0) / WIDTH, "height": 100 * (y1 - y0) / HEIGHT, "rotation": 0}
    return region("rectanglelabels", {**place, **size}, label)


def ellipse(x: float, y: float, radius: float) -> dict[str, Any]:
    value = {
        "x": 100 * x / WIDTH,
        "y": 100 * y / HEIGHT,
        "radiusX": 100 * radius / WIDTH,
        "radiusY": 100 * radius / HEIGHT,
    }
    return region("ellipselabels", value)


def typed(text: str, identity: str = "t") -> dict[str, Any]:
    return {"id": identity, "type": "textarea", "from_name": "prompt", "to_name": "image", "value": {"text": [text]}}


def task(*result: dict[str, Any], expression: Any = "the ship", number: int = 1, **data: Any) -> dict[str, Any]:
    found = {"image": A, "expression": expression, **data}
    found = {key: value for key, value in found.items() if value is not None}
    return {"id": number, "data": found, "annotations": [{"id": 10 * number, "result": list(result)}]}


def read(*tasks: dict[str, Any]) -> tuple[list[Sample], list[str]]:
    problems: list[Problem] = []
    samples = list(samples_of(tasks, ImportRules(images=CASES / "uploads"), problems))
    return samples, [problem.message for problem in problems]


def said(samples: list[Sample]) -> dict[str, list[int]]:
    """Expression -> area of each target, over all images."""
    found: dict[str, list[int]] = {}
    for sample in samples:
        for record in sample.records:
            areas = [int(mask.sum()) for mask in sample.masks(record)]
            found.setdefault(record.expression, []).extend(areas)
    return found


FOUND = "pslg model=v clicks=0 score=0.900"
CLICKED = "pslg model=v clicks=2 score=0.900"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ([typed("the red one"), brush(1, 1, 11, 11, FOUND, "expression: the ship")], {"the ship": [100]}),
        ([brush(1, 1, 11, 11, FOUND, "expression: the  ship ")], {"the ship": [100]}),
        ([brush(1, 1, 11, 11, f"{FOUND}\nexpression: the ship\nlooks odd")], {"the ship": [100]}),
        ([brush(1, 1, 11, 11, CLICKED, "expression: the ship")], {"the ship": [100]}),
        (
            [brush(1, 1, 11, 11, FOUND, "expression: the ship"), brush(30, 1, 41, 11, CLICKED)],
            {"the ship": [100], "": [110]},
        ),
        (
            [brush(1, 1, 11, 11, FOUND, "expression: the ship", id="r"), typed("the long ship", "r")],
            {"the long ship": [100]},
        ),
        (
            [brush(1, 1, 11, 11, FOUND, "expression: the ship"), brush(1, 1, 11, 12, FOUND, "expression: the boat")],
            {"the ship": [100], "the boat": [110]},
        ),
    ],
)
def test_words_stay_with_what_they_were_found_for(result: list[dict[str, Any]], words: dict[str, list[int]]) -> None:
    samples, _ = read(task(*result))
    assert said(samples) == words


@pytest.mark.parametrize(
    ("result", "areas"),
    [
        ([brush(5, 5, 25, 25), polygon(5, 5, 25, 13), polygon(5, 17, 25, 25)], [400]),
        ([brush(0, 0, 20, 10), polygon(0, 0, 20, 5)], [100, 200]),
        ([polygon(0, 0, 20, 10), brush(0, 0, 20, 7)], [140]),
        ([brush(5, 5, 10, 10), brush(20, 5, 25, 10), box(4, 4, 26, 11)], [25, 25]),
        ([brush(5, 5, 10, 10), box(4, 4, 26, 11, "harbor")], [25, 154]),
        ([brush(10, 10, 20, 20), ellipse(15, 15, 5.5)], [100]),
        ([polygon(10, 10, 20, 20), ellipse(15, 15, 5.5), box(9, 9, 21, 21)], [100]),
        ([box(5, 5, 15, 15), box(5, 5, 15, 16)], [110]),
        ([brush(5, 5, 15, 15, to_name="before"), brush(5, 5, 15, 15, to_name="after")], [100, 100]),
    ],
)
def test_one_object_of_several_controls_is_one(result: list[dict[str, Any]], areas: list[int]) -> None:
    two: dict[str, Any] = {"image": None, "before": A, "after": B} if result[0]["to_name"] == "before" else {}
    samples, problems = read(task(*result, **two))
    assert sorted(area for found in said(samples).values() for area in found) == areas
    assert not [problem for problem in problems if "cannot be told" in problem]


def test_of_two_images_only_what_says_where_it_lies_is_taken() -> None:
    lost = brush(20, 1, 41, 11)
    del lost["to_name"]
    samples, problems = read(task(brush(1, 1, 11, 11, to_name="before"), lost, image=None, before=A, after=B))
    assert [(sample.image.file_name, sample.area(sample.records[0])) for sample in samples] == [("a.png", 100)]
    assert "which image its regions on None belong to cannot be told: its data has after, before" in problems[0]


def test_one_image_needs_no_name_for_it() -> None:
    lost = brush(1, 1, 11, 11)
    del lost["to_name"]
    samples, problems = read(task(lost))
    assert (said(samples), problems) == ({"the ship": [100]}, [])


def test_an_image_labelled_at_two_sizes_stays_two_and_the_export_says_which_is_wrong() -> None:
    other = brush(1, 1, 11, 11)
    other |= {"original_width": HEIGHT, "original_height": WIDTH}
    samples, _ = read(task(brush(1, 1, 11, 11)), task(other, number=2))
    assert [(sample.image.width, sample.image.height) for sample in samples] == [(64, 48), (48, 64)]


@pytest.mark.parametrize(
    ("tasks", "absent"),
    [
        ([task()], ["the ship"]),
        ([task(expression=["the ship", "the bridge"])], ["the bridge", "the ship"]),
        ([task({**typed("no mask: absent"), "from_name": NOTE})], ["the ship"]),
        ([task(), task(number=2)], ["the ship"]),
        ([task(expression=None)], []),
        ([task(typed("the bridge"))], []),
    ],
)
def test_what_was_submitted_empty_is_absent_once(tasks: list[dict[str, Any]], absent: list[str]) -> None:
    samples, _ = read(*tasks)
    assert sorted(r.expression for sample in samples for r in sample.records if not r.targets) == absent


@pytest.mark.parametrize("second", [task(number=2), task(brush(30, 1, 41, 11), number=2)])
def test_tasks_that_contradict_each_other_are_found_by_validate(second: dict[str, Any]) -> None:
    (sample,), _ = read(task(brush(1, 1, 11, 11)), second)
    codes = [finding.code for finding in check_sample(sample)]
    assert "expression-two-targets" in codes


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (brush(1, 1, 11, 11, image_rotation=90), "was drawn on the image rotated by 90"),
        ({**brush(1, 1, 11, 11), "original_width": None}, "has no original_width and original_height"),
        ({**brush(1, 1, 11, 11), "value": None}, "has no value with its shape"),
        ({**brush(1, 1, 11, 11), "original_width": 65}, "an image of 3120 pixels has 12480"),
        ({**polygon(1, 1, 9, 9), "value": {"points": [[1, 1], [2, 2]]}}, "at least three points"),
    ],
)
def test_a_region_that_cannot_be_read_is_named(odd: dict[str, Any], why: str) -> None:
    samples, problems = read(task(odd), task(brush(30, 1, 41, 11), number=2))
    assert said(samples) == {"the ship": [110]}
    assert any(why in problem for problem in problems), problems


def test_a_note_in_the_region_s_own_field_is_not_read_as_a_path(tmp_path: Path) -> None:
    samples, _ = read(task(brush(1, 1, 11, 11, FOUND, f"see {tmp_path}/b.png")))
    assert [sample.image.file_name for sample in samples] == ["a.png"]
