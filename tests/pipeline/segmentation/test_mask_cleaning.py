from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.pipeline.segmentation.mask_cleaning import clean_mask, shown_mask
from backend.pipeline.types import Box, Mask, Point, Prompts


def scene() -> Mask:
    mask = np.zeros((50, 60), np.bool_)
    mask[10:30, 10:30] = True
    mask[20, 20] = False  # a pin-hole
    mask[5, 50] = mask[45:47, 3:5] = True  # specks of one and four pixels
    return mask


def test_specks_and_pin_holes_go() -> None:
    cleaned = clean_mask(scene(), 16, 16)
    expected = np.zeros((50, 60), np.bool_)
    expected[10:30, 10:30] = True
    assert np.array_equal(cleaned, expected)


def test_the_clicked_part_stays_however_small() -> None:
    cleaned = clean_mask(scene(), 16, 16, [Point(3.4, 46.0), Point(59.0, 49.0)])
    assert cleaned[45:47, 3:5].all()
    assert not cleaned[5, 50]


def test_a_small_object_is_not_a_speck() -> None:
    mask = np.zeros((50, 60), np.bool_)
    mask[3:5, 3:6] = True
    mask[30, 30] = True
    cleaned = clean_mask(mask, 16, 16)
    assert cleaned[3:5, 3:6].all()
    assert cleaned.sum() == 6


def test_large_holes_and_notches_at_the_border_stay() -> None:
    mask = np.ones((30, 30), np.bool_)
    mask[10:20, 10:20] = False
    mask[0, 5] = False
    assert np.array_equal(clean_mask(mask, 16, 16), mask)


def test_an_empty_mask_stays_empty() -> None:
    assert not clean_mask(np.zeros((5, 5), np.bool_), 16, 16, [Point(1, 1)]).any()


def test_what_need_not_be_cleaned_is_not_copied() -> None:
    mask = np.zeros((50, 60), np.bool_)
    mask[10:30, 10:30] = True
    assert clean_mask(mask, 16, 16) is mask


def cleaned_pixel_by_pixel(mask: Mask, speck_area: int, hole_area: int, clicked: list[Point]) -> Mask:
    """The same with OpenCV's connected components, on all pixels."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(np.pad(mask, 1).astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    keep = areas >= speck_area
    keep[areas.argmax()] = True
    for point in clicked:
        keep[parts[int(point.y) + 1, int(point.x) + 1]] = True
    keep[0] = False
    kept = keep[parts]
    _, regions, stats, _ = cv2.connectedComponentsWithStats((~kept).astype(np.uint8), connectivity=4)
    fill = stats[:, cv2.CC_STAT_AREA] < hole_area
    fill[[0, regions[0, 0]]] = False
    return np.asarray((kept | fill[regions])[1:-1, 1:-1], np.bool_)


@pytest.mark.parametrize("seed", range(60))
def test_runs_and_pixels_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    mask = rng.random((height, width)) < rng.choice([0.1, 0.4, 0.6, 0.9])
    if seed % 3 == 1:
        mask[:, 0] = False
    if seed % 3 == 2:
        mask[:, -1] = False
    mask[height // 2, width // 2] = True
    clicked = [Point(float(x), float(y)) for x, y in rng.integers(0, (width, height), (3, 2))]
    found = clean_mask(mask, 5, 4, clicked)
    # A hole that touches the box around the mask counts as outside, as it does at the image's border.
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    expected = np.zeros_like(mask)
    moved = [
        Point(p.x - columns[0], p.y - rows[0])
        for p in clicked
        if columns[0] <= p.x <= columns[-1] and rows[0] <= p.y <= rows[-1]
    ]
    expected[box] = cleaned_pixel_by_pixel(mask[box], 5, 4, moved)
    assert np.array_equal(found, expected)


def test_a_new_object_is_the_clicked_part_alone() -> None:
    mask = np.zeros((60, 80), np.bool_)
    mask[5:30, 5:30] = mask[40:55, 50:75] = True
    found = clean_mask(mask, 4, 4, [Point(60, 45)], only_clicked=True)
    assert found.sum() == 15 * 25
    assert found[45, 60]
    assert clean_mask(mask, 4, 4, [Point(40, 2)], only_clicked=True).sum() == mask.sum()  # no part was clicked


def prompts(*made: tuple[float, float, int], box: Box | None = None) -> Prompts:
    points = np.array([(x, y) for x, y, _ in made], np.float32).reshape(-1, 2)
    return Prompts(points, np.array([sign for _, _, sign in made], np.int64), box)


def test_a_thin_box_keeps_the_mask_to_itself() -> None:
    mask = np.zeros((60, 80), np.bool_)
    mask[20:40, 5:75] = True  # the bridge, and the water beside it
    box = Box(10, 28, 70, 32)
    shown = shown_mask(mask, prompts(box=box), 0, 0, new=True)
    rows, columns = np.nonzero(shown.any(axis=1))[0], np.nonzero(shown.any(axis=0))[0]
    assert (rows.min(), rows.max()) == pytest.approx((26, 33), abs=1), "two pixels beyond the box"
    assert (columns.min(), columns.max()) == (5, 74), "a tenth of its side, as far as there is a mask"
    assert np.array_equal(shown_mask(mask, prompts((40, 30, 1)), 0, 0, new=True), mask)


def test_a_turned_box_keeps_the_mask_to_itself() -> None:
    mask = np.ones((100, 100), np.bool_)
    corners = np.array([(20.0, 20.0), (80.0, 80.0), (77.0, 83.0), (17.0, 23.0)])  # a thin one along the diagonal
    around = Box(17, 20, 80, 83)
    shown = shown_mask(mask, prompts(box=around), 0, 0, new=True, drawn=corners)
    assert shown[50, 49]
    assert not shown[30, 70]
    assert not shown[70, 30]
    assert 60 * 2**0.5 * 4 < shown.sum() < 80 * 2**0.5 * 12
    assert shown_mask(mask, prompts(box=around), 0, 0, new=True).sum() > 5000
    outside = np.array([(90.0, 90.0), (120.0, 90.0), (120.0, 130.0), (90.0, 130.0)])
    assert shown_mask(mask, prompts(box=Box(90, 90, 120, 130)), 0, 0, new=True, drawn=outside).any()


@pytest.mark.parametrize("left", [0, 3])
def test_what_was_clicked_away_stays_away_however_small(left: int) -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[2:18, left:] = True
    mask[9:11, 9:11] = False
    assert clean_mask(mask, 0, 16)[9, 9], "a pin-hole is filled"
    shown = shown_mask(mask, prompts((5.5, 5.5, 1), (9.5, 9.5, 0)), 0, 16, new=True)
    assert np.array_equal(shown, mask)
