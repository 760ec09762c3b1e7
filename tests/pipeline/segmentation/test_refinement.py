from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from backend.pipeline.segmentation.refinement import distance_in_sizes, mostly, outlined, refines, spread_points
from backend.pipeline.segmentation.replay import ReplayCache, replay
from backend.pipeline.types import Mask, Point, Prompts
from dataset_tools import brush_rle
from tests.pipeline.segmentation.test_replay import SIZE, Counting, block, clicks


def test_clicks_refine_a_region_that_they_lie_on_or_that_holds_what_they_outline() -> None:
    segmenter, image = Counting(), np.random.default_rng(3).integers(0, 256, (*SIZE, 3), dtype=np.uint8)

    embed = partial(segmenter.embed, image)
    ask: Callable[[Prompts, Mask], bool] = partial(refines, segmenter, embed, SIZE)
    assert ask(clicks((110, 90, 0)), block(100, 80, 40))
    assert not ask(clicks((10, 10, 0)), block(100, 80, 40))
    prompts = clicks((150, 120, 1), (10, 10, 1))
    alone = replay(segmenter, embed, SIZE, clicks((150, 120, 1))).mask
    missing = alone.copy()
    missing[118:123, 148:153] = False  # the click falls into what is missing
    assert ask(prompts, missing)
    assert not ask(prompts, np.zeros(SIZE, np.bool_))
    kept = ReplayCache().of("model", "image")
    assert outlined(segmenter, embed, SIZE, prompts, kept) == spread_points(alone)
    before = len(segmenter.decoded)
    assert outlined(segmenter, embed, SIZE, prompts, kept) == spread_points(alone)
    assert len(segmenter.decoded) == before


def test_points_are_spread_over_the_mask() -> None:
    points = spread_points(block(10, 10, 20))
    assert len(points) == 9
    assert all(block(10, 10, 20)[int(point.y), int(point.x)] for point in points)
    assert max(point.y for point in points) - min(point.y for point in points) > 15
    assert spread_points(np.zeros(SIZE, np.bool_)) == ()
    assert mostly([True, True, False])
    assert not mostly([True, False])
    assert not mostly([])


def test_a_positive_click_close_to_a_region_refines_it_whatever_it_outlines() -> None:
    segmenter, image = Counting(), np.zeros((*SIZE, 3), np.uint8)
    region = block(100, 80, 40)
    ask: Callable[[Prompts, Mask], bool] = partial(refines, segmenter, partial(segmenter.embed, image), SIZE)
    assert ask(clicks((147, 100, 1)), region)  # 8 pixels beside 40
    assert not segmenter.decoded
    assert not ask(clicks((147, 100, 0)), region)
    assert not ask(clicks((147, 100, 1)), block(130, 80, 6))  # the same distance is far from a small one


@pytest.mark.parametrize("seed", range(5))
def test_the_distance_is_that_of_the_nearest_pixel(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random((12, 9)) < (0.05, 0.3, 0.9, 0.1, 0.6)[seed]
    mask[5:8, 4:] = mask[6:9, :3] = seed > 1  # runs that go on in the next row, one of them over a whole row
    mask[7] |= seed == 4
    rows, columns = np.nonzero(mask)
    for x, y in generator.random((30, 2)) * (9, 12):
        expected = np.hypot(rows - int(y), columns - int(x)).min() / np.sqrt(mask.sum())
        found = distance_in_sizes(*brush_rle.mask_runs(mask), 9, Point(float(x), float(y)))
        assert found == pytest.approx(expected)


def test_nothing_is_infinitely_far_away() -> None:
    assert distance_in_sizes(*brush_rle.mask_runs(np.zeros((3, 3), np.bool_)), 3, Point(1.0, 1.0)) == np.inf
