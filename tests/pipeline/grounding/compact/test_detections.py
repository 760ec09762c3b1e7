"""Repeats left out of readings and tiles; large images read in tiles, with the shipped detector."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from backend.pipeline.grounding.compact.detections import (
    LARGEST_WHOLE,
    Detection,
    detect,
    detect_anywhere,
    merge,
    without_repeats,
)
from backend.pipeline.grounding.compact.grounder import CompactGrounder, load_compact_grounder
from backend.pipeline.types import Image
from backend.pipeline.weights.folders import SHIPPED_FOLDER
from dataset_tools.geometry import Box
from dataset_tools.synthetic import draw_scene

Array: TypeAlias = npt.NDArray[Any]
CERTAIN = 0.45
"""A score that a drawn vehicle or tank reaches and its surroundings do not."""
FAINT = 0.15
"""A score that no answer is made of: there, larger boxes around the same object are found as well."""


@pytest.fixture(scope="module")
def grounder() -> CompactGrounder:
    return load_compact_grounder(SHIPPED_FOLDER / "compact_grounder" / "model.safetensors")


def on_canvas(image: Image, x: int, y: int, width: int, height: int) -> Image:
    """``image`` on plain ground."""
    canvas = np.full((height, width, 3), (102, 105, 94), np.uint8)
    canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    return canvas


def certain(found: list[Detection] | tuple[Detection, ...]) -> Counter[str]:
    """How many sure detections there are of each category."""
    return Counter(d.category for d in found if d.score >= CERTAIN)


def test_tiles_find_what_a_large_image_hides_and_each_object_once(grounder: CompactGrounder) -> None:
    scene = draw_scene(11).image
    scales = grounder.calibration.scales
    alone = detect(grounder.detector, scene, scales, 0.05)
    assert sum(certain(alone).values()) >= 4
    # The tiles of 1280 pixels begin at 0, 860 and 1720: the scene is cut by two of them in both directions.
    large = on_canvas(scene, 900, 950, 3000, 3000)
    found = detect_anywhere(grounder.detector, large, scales, 0.05)
    assert sum(certain(detect(grounder.detector, large, scales, 0.05)).values()) < sum(certain(found).values())
    for wanted in (d for d in alone if d.score >= CERTAIN):
        moved = wanted.box.shifted(900, 950)
        hits = [d for d in found if d.category == wanted.category and d.score > FAINT and d.box.iou(moved) > 0.5]
        assert len(hits) == 1, wanted
    scores = [d.score for d in found]
    assert scores == sorted(scores, reverse=True)


def test_smaller_images_are_read_as_before(grounder: CompactGrounder) -> None:
    image = on_canvas(draw_scene(3).image, 0, 0, LARGEST_WHOLE, 1024)
    scales = grounder.calibration.scales
    assert detect_anywhere(grounder.detector, image, scales, 0.1) == detect(grounder.detector, image, scales, 0.1)


def test_the_grounder_answers_in_a_large_image(grounder: CompactGrounder) -> None:
    scene = draw_scene(11).image
    large = on_canvas(scene, 1200, 100, 3000, 900)
    sure = {d.category for d in grounder.detections(scene) if d.score >= CERTAIN + 0.1}  # one at the limit may fall
    assert sure
    assert certain(grounder.detections(large)).keys() >= sure


def crowd(seed: int, count: int = 300) -> tuple[Array, Array, Array, Array]:
    """Boxes [N, 4] in heaps, scores, labels 0 to 2 and readings 0 or 1."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 200, (count // 6, 2))[rng.integers(0, count // 6, count)] + rng.normal(0, 2, (count, 2))
    sides = rng.uniform(4, 30, (count, 2))
    boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1).astype(np.float32)
    scores = rng.uniform(0.03, 1, count).astype(np.float32)
    return boxes, scores, rng.integers(0, 3, count), rng.integers(0, 2, count)


@pytest.mark.parametrize("seed", range(4))
def test_readings_are_merged_alike_in_any_order_and_label_by_label(seed: int) -> None:
    boxes, scores, labels, readings = crowd(seed)
    factors = np.array([0.5, 1.0])

    def merged(chosen: Array) -> list[tuple[int, float, list[float]]]:
        found = merge(boxes[chosen], scores[chosen], labels[chosen], readings[chosen], factors=factors, overlap=0.5)
        rows = [(int(c), float(s), b.round(3).tolist()) for b, s, c in zip(*found, strict=True)]
        assert [score for _, score, _ in rows] == sorted((score for _, score, _ in rows), reverse=True)
        return sorted(rows)

    everything = merged(np.arange(len(boxes)))
    assert 0 < len(everything) < len(boxes)
    assert merged(np.random.default_rng(seed).permutation(len(boxes))) == everything
    assert sorted(row for label in range(3) for row in merged(np.flatnonzero(labels == label))) == everything


def test_what_one_reading_sees_alone_is_doubtful_unless_the_other_could_not_see_it() -> None:
    boxes = np.array([[0, 0, 40, 40], [1, 0, 41, 40], [100, 0, 140, 40], [200, 0, 212, 12]], np.float32)
    scores = np.array([0.8, 0.4, 0.6, 0.5], np.float32)
    merged, means, _ = merge(
        boxes, scores, np.zeros(4, np.int64), np.array([0, 1, 1, 1]), factors=np.array([0.5, 1.0]), overlap=0.5
    )
    # The mean of two readings; 12 pixels are 6 in the coarse reading, which is not asked; one of two saw the third.
    assert means.tolist() == pytest.approx([0.6, 0.5, 0.3])
    assert merged.tolist() == [pytest.approx([1 / 3, 0, 40 + 1 / 3, 40]), [200, 0, 212, 12], [100, 0, 140, 40]]


def test_a_reading_of_two_looks_has_two_voices() -> None:
    boxes = np.array([[0, 0, 40, 40], [3, 0, 43, 40], [100, 0, 140, 40], [200, 0, 220, 9]], np.float32)
    scores = np.array([0.8, 0.4, 0.6, 0.5], np.float32)
    merged, means, _ = merge(
        boxes,
        scores,
        np.zeros(4, np.int64),
        np.array([0, 1, 1, 0]),
        factors=np.array([0.5, 1.0]),
        overlap=0.5,
        looks=np.array([2, 1]),
    )
    # The last is 10 pixels in the coarse reading: asked, but with one voice like the finer one.
    assert means.tolist() == pytest.approx([2 / 3, 0.25, 0.2])
    assert merged[0].tolist() == pytest.approx([0.6, 0, 40.6, 40])


@pytest.mark.parametrize("seed", range(4))
def test_a_repeat_gives_way_to_a_better_detection_of_its_category_only(seed: int) -> None:
    boxes, scores, labels, _ = crowd(seed)
    found = [
        Detection(Box(*box), "abc"[label], score)
        for box, label, score in zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True)
    ]

    def repeats(one: Detection, better: Detection) -> bool:
        low = max(one.box.x0, better.box.x0), max(one.box.y0, better.box.y0)
        shared = Box(*low, min(one.box.x1, better.box.x1), min(one.box.y1, better.box.y1)).area
        inside = one.box.iou(better.box) > 0.5 or shared >= 0.8 * one.box.area
        return inside and one.category == better.category and one.score < better.score

    kept = without_repeats(found)
    assert [d.score for d in kept] == sorted((d.score for d in kept), reverse=True)
    assert not any(repeats(one, better) for one in kept for better in kept)
    assert all(any(repeats(one, better) for better in kept) for one in found if one not in kept)
    assert without_repeats([]) == []
