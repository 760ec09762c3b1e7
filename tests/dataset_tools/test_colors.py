from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_tools.colors import NAMES, color_of_box, color_of_mask, name_pixels, similarity
from dataset_tools.geometry import Box


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((250, 250, 248), "white"),
        ((225, 228, 232), "white"),
        ((128, 128, 130), "gray"),
        ((90, 95, 100), "gray"),
        ((20, 22, 25), "black"),
        ((200, 30, 35), "red"),
        ((150, 25, 25), "red"),
        ((235, 130, 30), "orange"),
        ((120, 80, 45), "brown"),
        ((165, 135, 100), "brown"),
        ((235, 220, 60), "yellow"),
        ((60, 140, 60), "green"),
        ((45, 90, 50), "green"),
        ((60, 200, 200), "cyan"),
        ((40, 80, 190), "blue"),
        ((70, 110, 160), "blue"),
        ((120, 50, 170), "purple"),
        ((235, 130, 180), "pink"),
    ],
)
def test_names_of_plain_colors(rgb: tuple[int, int, int], name: str) -> None:
    assert NAMES[name_pixels(np.array(rgb, np.uint8))] == name


def test_the_object_and_not_its_surroundings_names_the_box() -> None:
    image = np.full((60, 80, 3), (70, 120, 60), np.uint8)
    image[20:40, 30:60] = (190, 40, 40)
    assert color_of_box(image, Box(28, 18, 62, 42)) == "red"
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:60] = True
    assert color_of_mask(image, mask) == "red"
    assert color_of_mask(image, ~mask) == "green"


def test_shadows_and_glints_do_not_rename_an_object() -> None:
    noise = np.random.default_rng(3).normal(0, 18, (40, 40, 3))
    image = np.clip(np.array([60, 90, 180]) + noise, 0, 255).astype(np.uint8)
    image[:, :8] = 10
    image[:4] = 255
    assert color_of_box(image, Box(0, 0, 40, 40)) == "blue"


@pytest.mark.parametrize("box", [Box(10, 10, 10, 20), Box(-50, -50, -10, -10), Box(90, 90, 120, 120)])
def test_nothing_to_see(box: Box) -> None:
    assert color_of_box(np.zeros((60, 60, 3), np.uint8), box) is None
    assert color_of_mask(np.zeros((6, 6, 3), np.uint8), np.zeros((6, 6), bool)) is None


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=50))
def test_every_color_has_a_name(pixels: list[tuple[int, int, int]]) -> None:
    names = name_pixels(np.array(pixels, np.uint8))
    assert names.shape == (len(pixels),)
    assert set(names.tolist()) <= set(range(len(NAMES)))


def test_similar_colors_fit_better_than_opposite_ones() -> None:
    assert similarity("gray", None) == similarity("gray", "gray") == 1.0
    assert similarity("gray", "white") > similarity("gray", "green")
    assert similarity("dark", "black") > similarity("dark", "white")
    assert similarity("orange", "brown") == similarity("brown", "orange")
