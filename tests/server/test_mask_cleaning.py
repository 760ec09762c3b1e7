from __future__ import annotations

import numpy as np

from backend.pipeline.types import Mask, Point
from backend.server.mask_cleaning import clean_mask


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
