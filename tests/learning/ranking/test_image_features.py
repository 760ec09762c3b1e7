"""Looks of images: a copy is known as one, each image is embedded once, and directions are comparable."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.database import Database
from backend.learning.ranking.image_features import ImageFeatures, feature_segmenter, look, same_look
from backend.learning.ranking.strategies import NEAR, directions
from backend.pipeline.segmentation import Segmenter
from backend.pipeline.types import Image
from dataset_tools.synthetic import draw_scene


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return feature_segmenter()


@pytest.fixture(scope="module")
def scenes() -> list[Image]:
    return [draw_scene(seed, 320, 240).image for seed in range(12)]


def recompressed(image: Image) -> Image:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def test_a_copy_is_near_and_other_scenes_are_not(segmenter: Segmenter, scenes: list[Image]) -> None:
    looks = [look(segmenter, image) for image in (*scenes, recompressed(scenes[0]))]
    vectors = directions(np.stack([item.vector for item in looks]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    assert apart[0, -1] < NEAR
    assert (apart + 9 * np.eye(13))[:-1, :-1].min() > NEAR
    groups = same_look({str(number): item for number, item in enumerate(looks)})
    assert groups["12"] == groups["0"]
    assert len(set(groups.values())) == 12


def test_an_image_is_embedded_once(segmenter: Segmenter, scenes: list[Image], tmp_path: Path) -> None:
    database = Database.of_state(tmp_path)
    asked = []

    def pixels() -> Image:
        asked.append(1)
        return scenes[3]

    first = ImageFeatures(database, segmenter).of("3" * 64, pixels)
    again = ImageFeatures(database, segmenter).of("3" * 64, pixels)
    database.close()
    assert len(asked) == 1
    assert np.array_equal(first.vector, again.vector)
    assert first.hash is not None
    assert again.hash is not None
    assert np.array_equal(first.hash, again.hash)


def test_flat_images_have_no_hash_and_no_duplicates(segmenter: Segmenter) -> None:
    flat = {name: look(segmenter, np.full((64, 64, 3), 90, np.uint8)) for name in "ab"}
    assert same_look(flat) == {"a": "a", "b": "b"}
    assert not directions(np.stack([item.vector for item in flat.values()])).any(), "nothing sets two equal ones apart"
