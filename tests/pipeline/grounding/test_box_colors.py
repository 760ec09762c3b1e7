"""The colour of an object in a box that it does not fill."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.pipeline.grounding.box_colors import color_in_box
from dataset_tools import synthetic
from dataset_tools.colors import name_of, similarity
from dataset_tools.geometry import Box

COLORS = {"white": (240, 240, 240), "red": (200, 30, 30), "blue": (40, 70, 190), "black": (15, 15, 15)}


@pytest.mark.parametrize("name", COLORS)
def test_a_slanted_bar_is_named_by_its_own_colour(name: str) -> None:
    image = np.full((120, 120, 3), (60, 120, 60), np.uint8)
    cv2.line(image, (30, 30), (90, 90), COLORS[name], 8)
    color = color_in_box(image, Box(28, 28, 93, 93))
    assert color is not None
    assert name_of(color) == name
    assert np.abs(np.array(color) - COLORS[name]).max() < 30


def test_boxes_at_the_border_and_without_area() -> None:
    image = np.full((40, 60, 3), 240, np.uint8)
    assert color_in_box(image, Box(0, 0, 60, 40)) == (240, 240, 240)
    assert color_in_box(image, Box(59.2, 39.1, 60, 40)) in ((240, 240, 240), None)
    assert color_in_box(image, Box(10, 10, 10, 10)) is None


def test_most_drawn_objects_fit_their_colour_word() -> None:
    fits = [
        similarity(item.color, color_in_box(scene.image, item.box))
        for scene in map(synthetic.draw_scene, range(3))
        for item in scene.objects
        if item.color is not None
    ]
    assert np.mean(fits) >= 0.7
