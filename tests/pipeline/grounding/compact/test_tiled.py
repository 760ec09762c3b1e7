"""Large images read in tiles, with the shipped detector."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from backend.pipeline.grounding.compact.detections import Detection, detect
from backend.pipeline.grounding.compact.grounder import CompactGrounder, load_compact_grounder
from backend.pipeline.grounding.compact.tiled import LARGEST_WHOLE, detect_anywhere
from backend.pipeline.types import Image
from backend.pipeline.weights.folders import SHIPPED_FOLDER
from dataset_tools.synthetic import draw_scene

CERTAIN = 0.45
"""A score that a drawn vehicle or tank reaches and its surroundings do not."""


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
        hits = [d for d in found if d.category == wanted.category and d.box.iou(moved) > 0.5]
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
    sure = {d.category for d in grounder.detections(scene) if d.score >= CERTAIN + 0.05}  # one at the limit may fall
    assert sure
    assert certain(grounder.detections(large)).keys() >= sure
