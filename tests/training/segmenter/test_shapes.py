"""Shapes pasted into training images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.training.segmenter.samples import TrainingScene, scene_of
from backend.training.segmenter.shapes import CATEGORY, draw_shape, shape_scenes
from backend.training.segmenter.training import BalancedDraw
from dataset_tools.synthetic import draw_scene


@pytest.fixture(scope="module")
def photographs() -> list[TrainingScene]:
    scenes = (draw_scene(seed) for seed in (1, 2))
    return [scene_of(str(n), s.image, ((o.category, o.mask) for o in s.objects)) for n, s in enumerate(scenes)]


def test_scenes_hold_shapes_that_differ_from_their_ground(photographs: list[TrainingScene]) -> None:
    scenes = list(shape_scenes(photographs, 4, seed=5))
    assert [scene.origin for scene in scenes] == ["shapes"] * 4
    targets = [(scene, target) for scene in scenes for target in scene.objects]
    assert len(targets) > 12
    assert {target.category for _, target in targets} == {CATEGORY}
    for scene, target in targets:
        x, y = target.offset
        height, width = target.mask.shape
        pixels, inside = scene.image[y : y + height, x : x + width], target.mask > 0
        around = cv2.dilate(target.mask, np.ones((5, 5), np.uint8)) == 0
        if around.sum() > 50:
            difference = pixels[inside].mean(axis=0) - pixels[around].mean(axis=0)
            assert np.abs(difference).max() > 4, scene.name


def test_shapes_do_not_fill_their_boxes(photographs: list[TrainingScene]) -> None:
    shares = []
    for scene in shape_scenes(photographs, 6, seed=3):
        shares += [target.area / target.box.area for target in scene.objects]
    assert np.mean(shares) < 0.65
    assert min(shares) < 0.35
    assert max(shares) > 0.65


def test_the_seed_decides(photographs: list[TrainingScene]) -> None:
    first, again, other = (next(shape_scenes(photographs, 1, seed)) for seed in (7, 7, 8))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)


def test_a_shape_is_connected_and_reaches_across_its_square() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        alpha = draw_shape(64, rng)
        assert alpha.shape == (64, 64)
        if alpha.any():
            _, _, statistics, _ = cv2.connectedComponentsWithStats((alpha > 0.5).astype(np.uint8))
            assert statistics[1:, cv2.CC_STAT_AREA].max() > 0.9 * (alpha > 0.5).sum()
            assert max(*cv2.boundingRect((alpha > 0.25).astype(np.uint8))[2:]) >= 58


def test_each_origin_gets_its_share_of_the_draws(photographs: list[TrainingScene]) -> None:
    scenes = [*photographs, *shape_scenes(photographs, 3, seed=1)]
    draw, rng = BalancedDraw(scenes, 0.6, {"synthetic": 0.3, "shapes": 0.25}), np.random.default_rng(0)
    drawn = [draw(rng)[0].origin for _ in range(2000)]
    assert set(drawn) == {"photographs", "shapes"}  # there is no synthetic scene, and its share goes to the photographs
    assert drawn.count("shapes") == pytest.approx(500, abs=80)


def test_small_images_make_smaller_scenes(photographs: list[TrainingScene]) -> None:
    small = scene_of("small", photographs[0].image[:50, :60], [])
    (scene,) = shape_scenes([small], 1, seed=1)
    assert scene.image.shape == (50, 60, 3)
