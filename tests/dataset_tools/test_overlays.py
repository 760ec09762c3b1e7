"""Overlays: what is asked for is really visible, sizes are as promised, text stays inside."""

from __future__ import annotations

import numpy as np
import pytest

from dataset_tools.geometry import Box, Point
from dataset_tools.overlays import OverlayObject, contact_sheet, draw_overlay, panel

GRAY = np.full((60, 80, 3), 90, np.uint8)
DISC = (np.hypot(*np.ogrid[-30:30, -40:40]) < 15).astype(np.bool_)


def test_a_mask_changes_its_own_pixels_and_few_others() -> None:
    drawn = draw_overlay(GRAY, [OverlayObject(mask=DISC)])
    changed = (drawn != GRAY).any(axis=2)
    assert drawn.shape == GRAY.shape
    assert changed[DISC].all()
    assert changed[~DISC].sum() < 0.1 * (~DISC).sum()


def test_the_image_given_is_not_drawn_upon() -> None:
    image = GRAY.copy()
    draw_overlay(image, [OverlayObject(DISC, Box(5, 5, 70, 50), Point(40, 30), "disc")])
    assert np.array_equal(image, GRAY)


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_box_point_and_truth_are_drawn_where_they_are(scale: float) -> None:
    drawn = draw_overlay(GRAY, [OverlayObject(box=Box(8, 12, 72, 48), point=Point(40, 30))], truth=DISC, scale=scale)
    assert drawn.shape == (round(60 * scale), round(80 * scale), 3)
    changed = (drawn != 90).any(axis=2)
    for x, y in [(8, 30), (40, 12), (40, 30), (40, 15)]:  # left and upper side, the point, the truth's contour
        row, column = round(y * scale), round(x * scale)
        assert changed[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].any()


def test_two_objects_get_two_colours() -> None:
    left, right = np.zeros((60, 80), np.bool_), np.zeros((60, 80), np.bool_)
    left[20:40, 10:30], right[20:40, 50:70] = True, True
    drawn = draw_overlay(GRAY, [OverlayObject(left), OverlayObject(right)])
    assert not np.array_equal(drawn[30, 20], drawn[30, 60])


@pytest.mark.parametrize("box", [Box(0, 0, 10, 10), Box(75, 55, 80, 60), Box(-5, -5, 85, 65)])
def test_labels_stay_inside_the_picture(box: Box) -> None:
    drawn = draw_overlay(GRAY, [OverlayObject(box=box, label="airplane 0.87")], scale=4)
    without = draw_overlay(GRAY, [OverlayObject(box=box)], scale=4)
    assert (drawn != without).any(axis=2).sum() > 500


def test_panels_of_tall_wide_and_tiny_images_fit_one_sheet() -> None:
    shapes = [(60, 80, 3), (300, 20, 3), (1, 1, 3), (20, 300, 3), (50, 50, 3)]
    panels = [panel(np.zeros(shape, np.uint8), [], "all the airplanes " * 20, "score 0.5") for shape in shapes]
    sheet = contact_sheet(panels, columns=2, gap=4)
    height, width = panels[0].shape[:2]
    assert sheet.shape == (4 + 3 * (height + 4), 4 + 2 * (width + 4), 3)


def test_a_sheet_refuses_nothing_and_mixed_sizes() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
    with pytest.raises(ValueError, match="one size"):
        contact_sheet([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)])
