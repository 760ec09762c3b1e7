"""Samples of the compact grounder: boxes must fit the pixels they are drawn with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.training.grounder.augmentation import SHAPELESS, UNLABELLED, AugmentationConfig, SampleMaker, clip_polygon
from backend.training.grounder.colors import shift_colors
from backend.training.grounder.data import OutlinedObject, TrainingImage, outline
from dataset_tools.geometry import Box

CATEGORIES = ("ship", "building")
SMALL = AugmentationConfig(size=128, reference_side=200, scale=(0.7, 1.5), mosaic_scale=(0.6, 1.2))


def scene(unlabelled: dict[str, float] | None = None) -> TrainingImage:
    """A dark image with one bright rectangle (ship) and one bright triangle (building)."""
    image = np.full((160, 200, 3), 20, np.uint8)
    ship, building = np.zeros((160, 200), bool), np.zeros((160, 200), bool)
    ship[30:50, 40:100] = True
    for row in range(40):
        building[90 + row, 120 : 121 + row] = True
    image[ship | building] = 240
    objects = (OutlinedObject("ship", outline(ship, 1.0)), OutlinedObject("building", outline(building, 1.0)))
    return TrainingImage("scene", image, objects, unlabelled or {})


def test_outline_extremes_are_the_masks_box() -> None:
    mask = np.zeros((50, 60), bool)
    mask[10:31, 5:26] = True
    item = OutlinedObject("ship", outline(mask, 1.0))
    assert item.box == Box(5, 10, 26, 31)
    assert OutlinedObject("ship", outline(mask, 0.5)).box == Box(2.5, 5, 13, 15.5)


@pytest.mark.parametrize("seed", range(12))
def test_boxes_enclose_the_bright_pixels(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.training.grounder.augmentation.shift_colors", lambda image, _: image)
    config = AugmentationConfig(size=128, reference_side=200, scale=(0.8, 1.6), mosaic=0.0, paste=0.0, visible=0.0)
    sample = SampleMaker([scene()], CATEGORIES, config).draw(np.random.default_rng(seed))
    # Padding may be bright; what is bright and has the colour of the objects must lie inside the boxes.
    bright = (sample.image > 200).all(axis=2) & (np.ptp(sample.image.astype(int), axis=2) < 12)
    covered = np.zeros_like(bright)
    for x0, y0, x1, y1 in sample.boxes:
        covered[max(0, int(y0) - 1) : int(np.ceil(y1)) + 1, max(0, int(x0) - 1) : int(np.ceil(x1)) + 1] = True
        inner = bright[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
        assert inner.any()
    assert not (bright & ~covered).any()


@pytest.mark.parametrize("seed", range(6))
def test_samples_are_well_formed_and_repeatable(seed: int) -> None:
    maker = SampleMaker([scene({"building": 0.0})], CATEGORIES, SMALL)
    sample = maker.draw(np.random.default_rng(seed))
    again = maker.draw(np.random.default_rng(seed))
    assert np.array_equal(sample.image, again.image)
    assert np.array_equal(sample.boxes, again.boxes)
    assert sample.image.shape == (128, 128, 3)
    assert sample.semantic.shape == (32, 32)
    assert set(np.unique(sample.semantic)) <= {0, 1, UNLABELLED}
    assert len(sample.boxes) == len(sample.labels)
    assert (sample.boxes >= 0).all()
    assert (sample.boxes <= 128).all()
    assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()


def test_incomplete_labels_say_nothing_outside_objects() -> None:
    config = AugmentationConfig(size=128, reference_side=200, scale=(1.0, 1.0), mosaic=0.0, paste=0.0)
    sample = SampleMaker([scene({"building": 0.0})], CATEGORIES, config).draw(np.random.default_rng(3))
    outside = sample.semantic == UNLABELLED
    assert (sample.background[1][outside] == 0).all()
    ship = sample.semantic == 0
    assert ship.any()
    assert (sample.background[1][ship] == 0.5).all()


def test_rare_categories_are_drawn_more_often() -> None:
    plain = TrainingImage("plain", np.zeros((64, 64, 3), np.uint8), scene().objects[:1], {})
    images = [plain] * 99 + [scene()]
    maker = SampleMaker(images, CATEGORIES, SMALL)
    rng = np.random.default_rng(0)
    assert sum((maker.draw(rng).labels == 1).any() for _ in range(60)) > 3


@given(
    st.lists(st.tuples(st.floats(-20, 40), st.floats(-20, 40)), min_size=3, max_size=8),
)
def test_clipped_polygon_stays_inside(corners: list[tuple[float, float]]) -> None:
    points: npt.NDArray[np.float64] = np.array(corners)
    clipped = clip_polygon(points, (0, 0, 20, 10))
    if len(clipped):
        assert clipped.min() >= -1e-6
        assert clipped[:, 0].max() <= 20 + 1e-6
        assert clipped[:, 1].max() <= 10 + 1e-6
    if ((points >= 0) & (points <= (20, 10))).all():
        assert np.array_equal(clipped, points)


def test_colors_keep_shape_and_leave_the_source_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)
    before = image.copy()
    changed = [shift_colors(image, np.random.default_rng(seed)) for seed in range(40)]
    assert np.array_equal(image, before)
    assert {(c.shape, c.dtype) for c in changed} == {((40, 56, 3), np.dtype(np.uint8))}
    assert sum(not np.array_equal(c, image) for c in changed) > 25


def vehicles(kind: str | None, *, boxes_only: bool = False) -> TrainingImage:
    """A scene with one vehicle."""
    mask = np.zeros((160, 200), bool)
    mask[60:90, 80:120] = True
    item = OutlinedObject("vehicle", outline(mask, 1.0), kind)
    return TrainingImage("scene", np.full((160, 200, 3), 90, np.uint8), (item,), {}, boxes_only)


KINDS_TOO = ("vehicle", "small vehicle", "large vehicle")
CENTERED = AugmentationConfig(
    size=128, reference_side=200, scale=(1, 1), mosaic=0, paste=0, around_object=1, free_rotation=1
)


def test_a_vehicle_of_unknown_kind_is_neither_kind_nor_background_of_one() -> None:
    for seed in range(5):
        sample = SampleMaker([vehicles(None)], KINDS_TOO, CENTERED).draw(np.random.default_rng(seed))
        if not len(sample.boxes):
            continue
        assert sample.kinds.tolist() == [-1]
        x0, y0, x1, y1 = (int(value / 4) for value in sample.boxes[0])
        assert not sample.background[1:, y0:y1, x0:x1].any()
        assert sample.background[0].all()


def test_a_vehicle_of_known_kind_is_background_of_the_other() -> None:
    sample = SampleMaker([vehicles("small vehicle")], KINDS_TOO, CENTERED).draw(np.random.default_rng(0))
    assert sample.kinds.tolist() == [1]
    assert sample.background.all()


def test_boxes_are_turned_by_right_angles_only_and_draw_no_mask() -> None:
    for seed in range(6):
        sample = SampleMaker([vehicles(None, boxes_only=True)], KINDS_TOO, CENTERED).draw(np.random.default_rng(seed))
        for x0, y0, x1, y1 in sample.boxes:
            if x0 > 0 and y0 > 0 and x1 < 128 and y1 < 128:
                assert sorted((x1 - x0, y1 - y0)) == pytest.approx([30, 40], abs=0.1)
        assert set(np.unique(sample.semantic)) <= {SHAPELESS, UNLABELLED}
