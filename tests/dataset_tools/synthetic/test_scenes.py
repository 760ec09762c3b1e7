"""Synthetic scenes: repeatable, varied, with masks and expressions that are true."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from dataset_tools import synthetic
from dataset_tools.categories import CATEGORIES
from dataset_tools.errors import DatasetError
from dataset_tools.formats import coco_jsonl

SEEDS = range(24)


@pytest.fixture(scope="module")
def scenes() -> list[synthetic.Scene]:
    return [synthetic.draw_scene(seed, width=480, height=400) for seed in SEEDS]


def test_a_seed_gives_the_same_pixels(scenes: list[synthetic.Scene]) -> None:
    again = synthetic.draw_scene(5, width=480, height=400)
    assert np.array_equal(again.image, scenes[5].image)
    assert [o.category for o in again.objects] == [o.category for o in scenes[5].objects]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(again.objects, scenes[5].objects, strict=True))
    assert not np.array_equal(again.image, scenes[6].image)


@pytest.mark.parametrize("theme", list(synthetic.THEMES))
@pytest.mark.parametrize(("width", "height"), [(128, 128), (300, 500), (800, 600)])
def test_every_theme_and_size_has_objects(theme: str, width: int, height: int) -> None:
    drawn = [synthetic.draw_scene(seed, width, height, theme) for seed in (1, 2, 3)]
    assert all(scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8 for scene in drawn)
    assert sum(len(scene.objects) for scene in drawn) >= 3
    assert all(o.mask.shape == (height, width) and o.mask.dtype == bool for scene in drawn for o in scene.objects)


def test_all_categories_occur_and_are_canonical() -> None:
    counts: dict[str, int] = {}
    for seed in range(40):
        for item in synthetic.draw_scene(seed, 640, 480).objects:
            counts[item.category] = counts.get(item.category, 0) + 1
    assert set(counts) == set(synthetic.SCENE_CATEGORIES)
    assert set(counts) <= set(CATEGORIES)


def test_objects_do_not_overlap_except_traffic_on_a_bridge(scenes: list[synthetic.Scene]) -> None:
    for scene in scenes:
        for a, b in combinations(scene.objects, 2):
            if (a.mask & b.mask).any():
                assert {a.category, b.category} == {"bridge", "vehicle"}, (scene.seed, a.category, b.category)


def test_masks_lie_where_the_paint_is(scenes: list[synthetic.Scene]) -> None:
    """White storage tanks and courts are the brightest, bluest or reddest things: the mask must say which pixels."""
    checked = 0
    for scene in scenes:
        image = scene.image.astype(float)
        for item in scene.objects:
            inside = image[item.mask].mean(axis=0)
            if item.color == "white" and item.category == "storagetank":
                checked += 1
                assert inside.min() > 130
            if item.color == "blue" and item.category in ("tenniscourt", "building"):
                checked += 1
                assert inside[2] > inside[0]
            if item.color == "red" and item.category == "building":
                checked += 1
                assert inside[0] > inside[2] * 1.2
    assert checked > 5


def test_expressions_hold(scenes: list[synthetic.Scene]) -> None:
    kinds = set()
    for scene in scenes:
        boxes = [o.box for o in scene.objects]
        by_category = {c: [i for i, o in enumerate(scene.objects) if o.category == c] for c in CATEGORIES}
        for item in synthetic.expressions(scene, seed=1):
            kinds.add(item.kind)
            members = by_category[item.category]
            assert set(item.targets) <= set(members)
            if item.kind == "absent":
                assert (members, item.targets) == ([], ())
            elif item.kind == "all":
                assert list(item.targets) == members
                assert len(members) > 1
            else:
                assert len(item.targets) == 1
                assert (len(members) == 1) or item.kind != "single"
            if "leftmost" in item.expression or "on the left" in item.expression:
                assert item.targets[0] == min(members, key=lambda i: boxes[i].center.x)
            if "bottommost" in item.expression or "at the bottom" in item.expression:
                assert item.targets[0] == max(members, key=lambda i: boxes[i].center.y)
            if "largest" in item.expression or "larger" in item.expression:
                assert item.targets[0] == max(members, key=lambda i: int(scene.objects[i].mask.sum()))
            if item.kind == "color":
                assert [scene.objects[i].color for i in members].count(scene.objects[item.targets[0]].color) == 1
            if item.kind == "region" and "upper left" in item.expression:
                x, y = boxes[item.targets[0]].center
                assert x < 160
                assert y < 400 / 3
    assert kinds == {"single", "color", "region", "extreme", "size", "near", "relation", "all", "absent"}


def test_written_folder_reads_back(tmp_path: Path, scenes: list[synthetic.Scene]) -> None:
    synthetic.write(tmp_path, scenes[:5], seed=1, split=(0.6, 0.2, 0.2))
    data = coco_jsonl.read(tmp_path)
    for image, scene in zip(data.images, scenes, strict=False):
        assert [(a.category, a.box) for a in image.annotations] == [(o.category, o.box) for o in scene.objects]
        assert all(np.array_equal(a.mask(), o.mask) for a, o in zip(image.annotations, scene.objects, strict=True))
    first = [e.expression for e in data.expressions if e.image == data.images[0].file_name]
    assert first == [e.expression for e in synthetic.expressions(scenes[0], 1)]
    assert {name: len(files) for name, files in data.split.items()} == {"train": 3, "val": 1, "test": 1}


def test_wrong_arguments_are_explained() -> None:
    with pytest.raises(DatasetError, match="no theme 'moon'; choose one of airport"):
        synthetic.draw_scene(0, theme="moon")
    with pytest.raises(DatasetError, match="64 x 64"):
        synthetic.draw_scene(0, 64, 64)
