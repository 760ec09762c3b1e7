"""CFPG: the point lies on the object, by the documented rules, also where there is little to see."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backend.pipeline.config import ForegroundPointsConfig
from backend.pipeline.foreground_points import clusters, foreground_cluster, foreground_point, regions
from backend.pipeline.types import Box, Image, Mask

CONFIG = ForegroundPointsConfig()


def paint(mask: Mask, seed: int = 0, background: int = 80, foreground: int = 170) -> Image:
    """A noisy picture with ``mask`` bright on dark."""
    noise = np.random.default_rng(seed).normal(0, 6, (*mask.shape, 3))
    return np.clip(np.where(mask[..., None], foreground, background) + noise, 0, 255).astype(np.uint8)


def disc(shape: tuple[int, int], center: tuple[float, float], radius: float) -> Mask:
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((xs - center[0]) ** 2 + (ys - center[1]) ** 2 < radius**2)


@pytest.mark.parametrize("side", [24, 120, 420])  # pixel clustering for the first two, histogram for the last
def test_the_point_is_the_center_of_a_disc(side: int) -> None:
    image = paint(disc((side, side), (side * 0.55, side * 0.45), side * 0.3))
    point = foreground_point(image, Box(0, 0, side, side), CONFIG)
    assert point == pytest.approx((side * 0.55, side * 0.45), abs=1.5 + side * 0.01)


@pytest.mark.parametrize("side", [120, 420])
def test_a_dark_object_on_a_bright_ground_is_found_as_well(side: int) -> None:
    object_mask = disc((side, side), (side / 2, side / 2), side * 0.3)
    point = foreground_point(paint(object_mask, background=200, foreground=60), Box(0, 0, side, side), CONFIG)
    assert object_mask[round(point.y), round(point.x)]


def test_the_crop_is_the_box_and_the_point_is_in_image_pixels() -> None:
    image = paint(disc((200, 300), (220, 60), 20))
    point = foreground_point(image, Box(190.5, 30.2, 250.7, 90.9), CONFIG)
    assert point == pytest.approx((220, 60), abs=2)


def test_a_center_outside_a_ring_is_moved_to_its_deepest_point() -> None:
    ring = disc((120, 120), (60, 60), 50) & ~disc((120, 120), (60, 60), 28)
    point = foreground_point(paint(ring), Box(0, 0, 120, 120), CONFIG)
    assert ring[round(point.y), round(point.x)]
    depth = cv2.distanceTransform(ring.astype(np.uint8), cv2.DIST_L2, 5)
    assert depth[round(point.y), round(point.x)] > 0.8 * depth.max()


def test_among_regions_above_the_threshold_the_most_convex_one_wins() -> None:
    crescent = disc((200, 200), (60, 100), 55) & ~disc((200, 200), (95, 100), 50)
    square = np.zeros((200, 200), np.bool_)
    square[75:125, 140:185] = True
    config = CONFIG.model_copy(update={"min_area": 0.03})
    point = foreground_point(paint(crescent | square), Box(0, 0, 200, 200), config)
    assert square[round(point.y), round(point.x)]
    too_small = config.model_copy(update={"min_area": 0.08})  # the square has 0.056 of the box
    point = foreground_point(paint(crescent | square), Box(0, 0, 200, 200), too_small)
    assert not square[round(point.y), round(point.x)]


def test_marker_rule_two_touching_discs_become_two_regions_and_one_disc_stays_one() -> None:
    """The pinned rule: markers are where the distance reaches ``marker_ratio`` of the component's own maximum."""
    big, small = disc((160, 240), (75, 80), 50), disc((160, 240), (160, 80), 42)
    foreground = big | small
    config = CONFIG.model_copy(update={"min_area": 0.02, "marker_ratio": 0.6})
    found = sorted(regions(paint(foreground), foreground, config), key=lambda region: region.area)
    assert len(found) == 2
    for region, whole in zip(found, (small, big), strict=True):
        assert (region.mask & whole).sum() > 0.9 * region.area
        assert region.convexity > 0.85
    # The neck's distance is 0.35 of the big disc's: a lower ratio marks both discs as one region.
    merged = regions(paint(foreground), foreground, config.model_copy(update={"marker_ratio": 0.2}))
    assert len(merged) == 1
    assert merged[0].area == foreground.sum()
    assert len(regions(paint(big), big, config)) == 1


def test_every_component_keeps_a_marker_however_small_beside_a_large_one() -> None:
    """A marker threshold relative to the largest component would lose the small one."""
    large, small = disc((200, 300), (90, 100), 80), disc((200, 300), (250, 100), 20)
    config = CONFIG.model_copy(update={"min_area": 0.01})
    found = regions(paint(large | small), large | small, config)
    assert sorted(region.area for region in found) == pytest.approx([small.sum(), large.sum()], rel=0.1)


def test_rules_for_the_foreground_cluster() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[4:16, 4:16] = 1
    assert foreground_cluster(labels, "border-majority").sum() == 144
    assert foreground_cluster(labels, "contrast").sum() == 144
    labels[1:19, 1:19] = 1  # cluster 1 now has most pixels, 0 still most of the outermost tenth
    labels[8:12, 8:12] = 0
    assert foreground_cluster(labels, "smaller")[0, 0]
    assert foreground_cluster(1 - labels, "smaller")[0, 0]


def test_without_two_colours_the_center_is_returned() -> None:
    flat = np.full((50, 60, 3), 77, np.uint8)
    assert clusters(flat, 0) is None
    assert foreground_point(flat, Box(10, 10, 30, 20), CONFIG) == (19.5, 14.5)
    assert foreground_point(np.full((300, 300, 3), 9, np.uint8), Box(0, 0, 300, 300), CONFIG) == (149.5, 149.5)


@pytest.mark.parametrize("box", [Box(5, 5, 6, 6), Box(5, 5, 7, 40), Box(5.2, 5.2, 5.4, 5.4), Box(0, 0, 40, 1)])
def test_boxes_too_small_for_clusters_give_their_center(box: Box) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    point = foreground_point(image, box, CONFIG)
    assert np.floor(box.x0) <= point.x < np.ceil(box.x1)
    assert np.floor(box.y0) <= point.y < np.ceil(box.y1)


def test_a_box_over_the_border_is_cut_and_one_outside_is_refused() -> None:
    image = paint(disc((100, 100), (5, 5), 25))
    point = foreground_point(image, Box(-30, -30, 40, 40), CONFIG)
    assert 0 <= point.x < 40
    assert 0 <= point.y < 40
    with pytest.raises(ValueError, match="does not overlap"):
        foreground_point(image, Box(100, 0, 120, 20), CONFIG)


@settings(max_examples=60)
@given(
    image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_the_point_is_always_a_pixel_of_box_and_image_and_repeats(
    image: npt.NDArray[np.uint8], corners: tuple[float, float, float, float]
) -> None:
    height, width = image.shape[:2]
    x0, x1 = sorted((corners[0] * width, corners[1] * width))
    y0, y1 = sorted((corners[2] * height, corners[3] * height))
    box = Box(min(x0, width - 0.5), min(y0, height - 0.5), max(x1, x0 + 0.5), max(y1, y0 + 0.5))
    point = foreground_point(image, box, CONFIG)
    assert 0 <= round(point.x) < width
    assert 0 <= round(point.y) < height
    assert np.floor(box.x0) <= point.x <= np.ceil(box.x1)
    assert point == foreground_point(image, box, CONFIG)
