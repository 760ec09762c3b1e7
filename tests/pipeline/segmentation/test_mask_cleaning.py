from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.types import Mask, Point


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
