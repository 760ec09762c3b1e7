from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from backend.pipeline.segmentation.compact_sam import window_for
from backend.pipeline.segmentation.replay import click_window, decode_clicks
from backend.pipeline.segmentation.sam import SamSegmenter
from backend.pipeline.types import Box, Embedding, Image, Prompts
from dataset_tools.errors import PromptError
from tests.pipeline.segmentation.small_sams import small_compact_sam, small_vit_sam


@pytest.fixture(scope="module")
def image() -> Image:
    return np.random.default_rng(3).integers(0, 256, (240, 300, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def segmenter() -> SamSegmenter:
    return SamSegmenter(small_compact_sam(), window_rule=window_for)


def points(*coordinates: tuple[float, float]) -> npt.NDArray[np.float32]:
    return np.array(coordinates, np.float32)


def test_negative_clicks_keep_the_window(segmenter: SamSegmenter, image: Image) -> None:
    def embed(window: Box) -> Embedding:
        return segmenter.embed(image, window)

    first = click_window(segmenter, embed, (240, 300), points((150, 120)), np.array([1]))
    later = click_window(segmenter, embed, (240, 300), points((150, 120), (10, 10), (30, 90)), np.array([1, 0, 0]))
    assert first.contains(Box(150, 120, 151, 121).center)
    assert first == later


def test_the_window_grows_to_a_positive_click_outside(segmenter: SamSegmenter, image: Image) -> None:
    def embed(window: Box) -> Embedding:
        return segmenter.embed(image, window)

    clicks = points((20, 20), (290, 230))
    window = click_window(segmenter, embed, (240, 300), clicks, np.array([1, 1]))
    prompts = Prompts(clicks, np.array([1, 1]))
    assert decode_clicks(segmenter, embed(window), prompts).mask.shape == (240, 300)


def test_models_of_whole_images_decode_nothing_to_find_a_window(image: Image) -> None:
    def embed(window: Box) -> Embedding:
        raise AssertionError(f"embedded {window}")

    whole = SamSegmenter(small_vit_sam())
    assert click_window(whole, embed, (240, 300), points((5, 5)), np.array([1])) == Box(0, 0, 300, 240)


def test_negative_clicks_alone_are_refused(segmenter: SamSegmenter, image: Image) -> None:
    with pytest.raises(PromptError, match="positive"):
        click_window(
            segmenter, lambda window: segmenter.embed(image, window), (240, 300), points((5, 5)), np.array([0])
        )


def test_a_replay_feeds_each_decode_the_logits_before(segmenter: SamSegmenter, image: Image) -> None:
    embedding = segmenter.embed(image, Box(40, 40, 140, 140))
    clicks, labels = points((90, 90), (60, 70)), np.array([1, 0])
    first = segmenter.decode(embedding, Prompts(clicks[:1], labels[:1]))
    second = segmenter.decode(embedding, Prompts(clicks, labels, None, first.low_res_logits))
    replayed = decode_clicks(segmenter, embedding, Prompts(clicks, labels))
    assert np.array_equal(replayed.low_res_logits, second.low_res_logits)
    with pytest.raises(PromptError, match="at least one click"):
        decode_clicks(segmenter, embedding, Prompts(box=Box(50, 50, 80, 80)))


def test_a_replay_begins_with_the_first_positive_click(segmenter: SamSegmenter, image: Image) -> None:
    embedding = segmenter.embed(image, Box(40, 40, 140, 140))
    clicks, labels = points((290, 230), (60, 70), (90, 90), (80, 60)), np.array([0, 0, 1, 0])
    first = segmenter.decode(embedding, Prompts(clicks[:3], labels[:3]))
    second = segmenter.decode(embedding, Prompts(clicks, labels, None, first.low_res_logits))
    replayed = decode_clicks(segmenter, embedding, Prompts(clicks, labels))
    assert np.array_equal(replayed.low_res_logits, second.low_res_logits)
