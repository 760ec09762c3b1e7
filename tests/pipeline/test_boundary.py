"""MBO: a displaced contour moves to the colour edge, a good one stays, and nothing gets worse without notice."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backend.pipeline.boundary import optimize_boundary
from backend.pipeline.config import BoundaryConfig
from tests.pipeline.test_foreground_points import disc, paint

CONFIG = BoundaryConfig(band=0.1)
TRUE = disc((160, 200), (100, 80), 45)


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("radius", [41, 49])  # too small and too large by 4 px, the band reaches 7 px
def test_a_displaced_contour_moves_to_the_edge(radius: int) -> None:
    given_mask = disc((160, 200), (100, 80), radius)
    result = optimize_boundary(paint(TRUE), given_mask, CONFIG)
    assert iou(given_mask, TRUE) < 0.9
    assert iou(result.mask, TRUE) > 0.98
    assert result.agreement == pytest.approx(iou(given_mask, result.mask))
    assert not result.kept


def test_it_runs_until_no_label_changes() -> None:
    shifted = disc((160, 200), (104, 82), 45)
    image = paint(TRUE)
    free = optimize_boundary(image, shifted, CONFIG.model_copy(update={"max_iterations": 50}))
    assert 1 < free.iterations < 50
    one_more = CONFIG.model_copy(update={"max_iterations": free.iterations + 1})
    assert np.array_equal(optimize_boundary(image, shifted, one_more).mask, free.mask)
    assert optimize_boundary(image, shifted, CONFIG.model_copy(update={"max_iterations": 1})).iterations == 1


def test_pixels_away_from_the_contour_never_change() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    result = optimize_boundary(noise, TRUE, CONFIG.model_copy(update={"min_agreement": 0.0}))
    radius = round(CONFIG.band * TRUE.sum() ** 0.5)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    inside, outside = cv2.erode(TRUE.astype(np.uint8), kernel), cv2.dilate(TRUE.astype(np.uint8), kernel)
    assert result.mask[inside == 1].all()
    assert not result.mask[outside == 0].any()


def test_a_drift_keeps_the_given_mask_and_says_so() -> None:
    given_mask = disc((160, 200), (100, 80), 49)
    strict = CONFIG.model_copy(update={"min_agreement": 0.99})
    result = optimize_boundary(paint(TRUE), given_mask, strict)
    assert result.kept
    assert result.agreement < 0.99
    assert np.array_equal(result.mask, given_mask)


def test_a_mask_at_the_border_is_not_eaten_from_the_border() -> None:
    half = np.zeros((100, 120), np.bool_)
    half[:, :50] = True
    result = optimize_boundary(paint(half), half, CONFIG)
    assert iou(result.mask, half) > 0.99


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((40, 50), np.bool_),
        np.ones((40, 50), np.bool_),
        disc((40, 50), (20, 20), 1.2),  # five pixels
        np.eye(40, 50, dtype=np.bool_),  # one pixel wide everywhere: no sure foreground is left
    ],
)
def test_masks_that_leave_little_to_decide(mask: npt.NDArray[np.bool_]) -> None:
    image = paint(disc((40, 50), (20, 20), 9))
    result = optimize_boundary(image, mask, CONFIG)
    assert result.mask.shape == mask.shape
    assert 0 <= result.agreement <= 1
    if result.iterations == 0:
        assert np.array_equal(result.mask, mask)


def test_a_large_mask_of_lines_a_pixel_wide_is_no_error() -> None:
    """Every second row and column shows one side only."""
    image = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    lines = np.zeros((700, 700), np.bool_)
    lines[:, 1::2] = True
    assert optimize_boundary(image, lines, BoundaryConfig(max_iterations=2)).mask.any()


def test_coarse_cuts_that_give_all_to_one_side_end_it() -> None:
    """An image of one colour, a mask without sure background."""
    image = np.full((240, 320, 3), 90, np.uint8)
    rng = np.random.default_rng(0)
    given = np.kron(rng.random((24, 32)) < 0.6, np.ones((10, 10))) > 0
    result = optimize_boundary(image, given, BoundaryConfig(band=0.2))
    assert result.mask.shape == given.shape
    assert 0 <= result.agreement <= 1


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        optimize_boundary(np.zeros((4, 4, 3), np.uint8), np.ones((4, 5), np.bool_), CONFIG)


@settings(max_examples=40)
@given(data=st.data(), shape=st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_any_image_and_mask_give_a_mask_and_repeat(data: st.DataObject, shape: tuple[int, int]) -> None:
    image = data.draw(hnp.arrays(np.uint8, (*shape, 3)))
    mask = data.draw(hnp.arrays(np.bool_, shape))
    result = optimize_boundary(image, mask, CONFIG)
    again = optimize_boundary(image, mask, CONFIG)
    assert result.mask.dtype == np.bool_
    assert np.array_equal(result.mask, again.mask)
    assert 0 <= result.agreement <= 1
    assert result.mask.any() == mask.any()


def test_a_large_object_is_cut_as_exactly_as_a_small_one() -> None:
    true = disc((500, 620), (300, 250), 180)
    result = optimize_boundary(paint(true), disc((500, 620), (304, 252), 172), CONFIG)
    assert iou(result.mask, true) > 0.99
    assert not result.kept
