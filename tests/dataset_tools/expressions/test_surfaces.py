"""What surrounds an object, read from the image."""

from __future__ import annotations

import numpy as np
import pytest

from dataset_tools.expressions.appearance import SURFACES, View, view_of
from dataset_tools.expressions.descriptive_words import SURFACES as NAMED
from dataset_tools.expressions.landmarks import surface_of
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Relation
from dataset_tools.expressions.surfaces import probabilities


@pytest.mark.parametrize("size", [(1, 1), (5, 700), (64, 64), (333, 1000)])
def test_every_cell_of_any_image_has_shares_of_all_surfaces(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    found = probabilities(image)
    assert found.shape[0] == len(SURFACES)
    np.testing.assert_allclose(found.sum(axis=0), 1.0, atol=1e-3)
    view = view_of(image)
    assert view.surfaces.shape == found.shape
    assert view.colors.shape[1:] == found.shape[1:]


@pytest.mark.parametrize(
    ("expression", "surface"),
    [
        ("the plane beside the hangar", ("roof", None)),
        ("the plane at the terminal", ("roof", None)),
        ("the tank closest to the dark roof", ("roof", "dark")),
        ("the car in the sand pit", ("bare", None)),
        ("the car in the car park", ("open", None)),
        ("the car in the front yard", ("grass", None)),
        ("the plane at the gates", ("roof", None)),
        ("the car near the jet bridge", ("roof", None)),
        ("the car left of the gate", None),
        ("the jet on the runway", None),
    ],
)
def test_what_a_landmark_is_looked_for_as(expression: str, surface: tuple[str, str | None] | None) -> None:
    relation = next(c for c in parse(expression).constraints if isinstance(c, Relation))
    assert surface_of(relation.targets[0]) == surface


def test_every_named_surface_can_be_looked_for() -> None:
    assert set(NAMED.values()) <= {*SURFACES, "land", "open"}


def test_land_is_never_less_than_none() -> None:
    surfaces = np.zeros((len(SURFACES), 1, 2))
    surfaces[SURFACES.index("water")] = [[0.7, 0.2]]
    surfaces[SURFACES.index("object")] = [[0.5, 0.3]]  # the networks' own share: the rules knew no such thing
    land = View(surfaces, np.zeros((12, 1, 2))).layer("land", None)
    np.testing.assert_allclose(land, [[0.0, 0.5]])
