"""Labelled images: what is read, what their names become, and what the evaluation asks of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.learning.examples import (
    LabelledObject,
    category_name,
    file_key,
    gate_examples,
    read_coco_jsonl,
    synthetic_examples,
)
from dataset_tools.geometry import Box


@pytest.mark.parametrize(
    ("label", "name"),
    [("Plane", "airplane"), ("Tennis_Courts", "tenniscourt"), ("Solar_Panel", "solar panel"), (" Pool  A", "pool a")],
)
def test_labels_get_a_canonical_name_where_there_is_one(label: str, name: str) -> None:
    assert category_name(label) == name


def test_an_object_keeps_its_pixels_and_its_tight_box() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[4:9, 10:25] = True
    item = LabelledObject.of("Solar_Panel", mask)
    assert (item.mask() == mask).all()
    assert item.box == Box(10, 4, 25, 9)
    assert item.category == "solar panel"


def test_scenes_are_drawn_once_and_say_what_is_complete(tmp_path: Path) -> None:
    first = synthetic_examples(tmp_path, 2, seed=5, width=200, height=160)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    second = synthetic_examples(tmp_path, 2, seed=5, width=200, height=160)
    assert first == second
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == written
    assert [image.key for image in first] == [file_key(image.path) for image in first]
    assert all({item.category for item in image.objects} <= image.complete for image in first)
    partly = read_coco_jsonl(first[0].path.parents[1], partly=["car"])
    assert all("vehicle" not in image.complete for image in partly)


def test_the_evaluation_asks_every_expression_with_its_targets(tmp_path: Path) -> None:
    images = synthetic_examples(tmp_path, 2, seed=5, width=200, height=160)
    examples = gate_examples(images)
    asked = [(image, expression) for image in images for expression in image.expressions]
    for example, (source, expression) in zip(examples, asked, strict=True):
        assert example.image == source.path
        assert [target.box for target in example.targets] == [source.objects[k].box for k in expression.objects]
        assert (example.kind == "absent") == (not expression.objects)
