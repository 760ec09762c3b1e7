from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_tools.colors import NAMES, Rgb, color_of_mask, memberships, name_of, similarity


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
def test_names_of_plain_colors(rgb: Rgb, name: str) -> None:
    assert name_of(rgb) == name
    assert similarity(name, rgb) > 0.5


def test_the_object_and_not_its_surroundings_gives_the_color() -> None:
    image = np.full((60, 80, 3), (70, 120, 60), np.uint8)
    image[20:40, 30:60] = (190, 40, 40)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:60] = True
    assert color_of_mask(image, mask) == (190, 40, 40)
    assert color_of_mask(image, ~mask) == (70, 120, 60)


def test_shadows_and_glints_do_not_rename_an_object() -> None:
    noise = np.random.default_rng(3).normal(0, 18, (40, 40, 3))
    image = np.clip(np.array([60, 90, 180]) + noise, 0, 255).astype(np.uint8)
    image[:, :8] = 10
    image[:4] = 255
    color = color_of_mask(image, np.ones((40, 40), bool))
    assert color is not None
    assert name_of(color) == "blue"


def test_nothing_to_see() -> None:
    assert color_of_mask(np.zeros((6, 6, 3), np.uint8), np.zeros((6, 6), bool)) is None


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=50))
def test_every_color_belongs_to_names(pixels: list[tuple[int, int, int]]) -> None:
    belongs = memberships(np.array(pixels, np.uint8))
    assert belongs.shape == (len(pixels), len(NAMES))
    assert np.allclose(belongs.sum(axis=-1), 1.0)
    assert all(0.05 <= similarity(word, rgb) <= 1.0 for word in (*NAMES, "dark", "light") for rgb in pixels[:3])


def test_similar_colors_fit_better_than_opposite_ones() -> None:
    assert similarity("gray", None) == similarity("gray", "gray") == 1.0
    assert similarity("gray", "white") > similarity("gray", "green")
    assert similarity("dark", "black") > 0.9 > 0.1 > similarity("dark", "white")
    assert similarity("light", "white") > 0.9 > 0.1 > similarity("light", "black")


def test_among_greyish_objects_the_whitest_fits_white_best() -> None:
    fits = [similarity("white", (level, level, level)) for level in (90, 140, 175, 205)]
    assert fits == sorted(fits)
    assert fits[-1] > 1.5 * fits[0]
