"""What a project's labels say of places where nothing is labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.pipeline.grounding.compact.detector_file import load_detector
from backend.training.adapter.adaptation import AdaptationOptions, categories_to_learn
from backend.training.adapter.rows import ViewCells, neighbourhoods
from backend.training.adapter.views import FeatureCache, FeatureView, Levels
from dataset_tools.labelled import LabelledImage, LabelledObject
from tests.learning.project_scenes import LABEL, panels, tiny_grounder

SIDE = 192
FAR = 0
"""A cell in the upper left corner, where nothing is drawn."""


def cells(tmp_path: Path, image: LabelledImage) -> ViewCells:
    detector, _ = load_detector(tiny_grounder(tmp_path / "base.safetensors"))
    categories = (*detector.config.categories, LABEL)
    return ViewCells(FeatureCache(detector, None), image, FeatureView(SIDE), categories, np.array([2]), 0.1)


def middle(image: LabelledImage) -> int:
    """The cell of the finest level in the middle of the first object."""
    x, y = image.objects[0].box.center
    return int(y // 4) * (SIDE // 4) + int(x // 4)


@pytest.mark.parametrize(
    ("objects", "complete", "beside"),
    [
        ("panel", {LABEL}, 1.0),  # "all the solar panels": elsewhere is none
        ("panel", set(), 0.0),  # "the left solar panel": there may be others
        ("ship", set(), 0.1),  # nobody said anything about solar panels
        ("none", {LABEL}, 1.0),  # "there is no solar panel"
    ],
)
def test_absence_is_learnt_as_far_as_somebody_said_so(
    tmp_path: Path, objects: str, complete: set[str], beside: float
) -> None:
    image = panels(tmp_path / "images", 1)[0]
    ship = LabelledObject.of("ship", image.objects[0].mask())
    named: dict[str, tuple[LabelledObject, ...]] = {"panel": image.objects, "ship": (ship,), "none": ()}
    found = cells(tmp_path, replace(image, objects=named[objects], complete=frozenset(complete)))
    assert found.background[FAR, 0] == pytest.approx(beside)
    if objects == "ship":  # a ship is no solar panel
        assert found.background[middle(image), 0] == 1.0
    assert found.positive.any() == (objects == "panel")
    assert not found.positive[FAR]


def test_a_sample_stands_for_all_cells(tmp_path: Path) -> None:
    image = panels(tmp_path / "images", 1)[0]
    found = cells(tmp_path, image)
    rows = found.sample(30, 5, np.random.default_rng(0))
    assert rows.hot.sum() <= found.positive.sum() + 5
    cold = rows.background[~rows.hot, 0]
    assert cold.sum() == pytest.approx(len(found.heat) - rows.hot.sum())
    assert (rows.heat[rows.hot] >= 0.999).any()


def test_neighbourhoods_end_at_the_border() -> None:
    levels: Levels = [np.arange(1, 13, dtype=np.float16).reshape(3, 4, 1), np.full((1, 2, 1), 50, np.float16)]
    level, row, column, features = neighbourhoods(levels, np.array([0, 6, 13]))
    assert (level.tolist(), row.tolist(), column.tolist()) == ([0, 0, 1], [0, 1, 0], [0, 2, 1])
    assert features[0].tolist() == [0, 0, 0, 0, 1, 2, 0, 5, 6]
    assert features[1].tolist() == [2, 3, 4, 6, 7, 8, 10, 11, 12]
    assert features[2].tolist() == [0, 0, 0, 50, 50, 0, 0, 0, 0]


def test_a_category_is_learnt_from_enough_objects(tmp_path: Path) -> None:
    images = panels(tmp_path / "images", 4)
    ship = [
        replace(image, objects=(LabelledObject.of("ship", image.objects[0].mask()),), complete=frozenset({"ship"}))
        for image in images
    ]
    partly = [replace(image, complete=frozenset()) for image in ship]
    options = AdaptationOptions(least_objects=3, least_known=4)
    assert categories_to_learn(("ship",), images, options) == ((LABEL,), ())
    assert categories_to_learn(("ship",), images[:2], options) == ((), ())
    assert categories_to_learn(("ship",), [*images, *ship], options) == ((LABEL,), ("ship",))
    assert categories_to_learn(("ship",), [*images, *ship[:3], *partly], options) == ((LABEL,), ())
