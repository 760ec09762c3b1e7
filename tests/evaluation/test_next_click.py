from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.evaluation.clicks import click_ious, summarize_clicks
from backend.evaluation.next_click import Correction, deepest_point, next_click
from backend.pipeline.types import Box, Embedding, Image, Mask, MaskPrediction, NamedImage, Prompts

SHAPE = (12, 14)
MASKS = arrays(bool, SHAPE)


@given(MASKS, MASKS)
def test_the_click_lies_on_a_wrong_pixel_and_says_what_is_missing(
    predicted: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_]
) -> None:
    click = next_click(predicted, target)
    if click is None:
        assert np.array_equal(predicted, target)
    else:
        assert predicted[click.y, click.x] != target[click.y, click.x]
        assert click.positive == target[click.y, click.x]


def test_the_largest_error_decides() -> None:
    target = np.zeros(SHAPE, bool)
    target[1:6, 1:6] = True
    predicted = np.zeros(SHAPE, bool)
    predicted[4:6, 4:6] = True
    predicted[8:11, 8:13] = True
    assert next_click(predicted, target) == Correction(2, 2, True)
    assert next_click(predicted | target, target) == Correction(9, 9, False)


def test_the_deepest_point_keeps_away_from_the_image_border() -> None:
    region = np.ones((9, 21), bool)
    x, y = deepest_point(region)
    assert y == 4
    assert 4 <= x <= 16
    with pytest.raises(ValueError, match="empty"):
        deepest_point(np.zeros((3, 3), bool))


class PaintedSquares:
    """A segmenter that paints a 5 x 5 square at each positive click and wipes one at each negative."""

    encoder_hash = "painted"

    def window_for(self, box: Box, image_size: tuple[int, int]) -> Box:
        return Box(0, 0, image_size[1], image_size[0])

    def embed(self, image: Image, window: Box | None = None, *, key: str | None = None) -> Embedding:
        height, width = image.shape[:2]
        return Embedding("key", np.zeros((1, 1, 1), np.float16), (height, width), Box(0, 0, width, height))

    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        mask = np.zeros(embedding.image_size, bool)
        for (x, y), label in zip(prompts.points.astype(int), prompts.point_labels, strict=True):
            mask[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = bool(label)
        return MaskPrediction(mask, 0.9, np.zeros((2, 2), np.float32), lambda: 0.9)

    def mask_prompt(self, embedding: Embedding, mask: Mask) -> npt.NDArray[np.float32]:
        raise NotImplementedError("clicks alone are evaluated")


def test_clicks_go_on_until_the_object_is_covered() -> None:
    target = np.zeros((20, 30), bool)
    target[5:10, 5:20] = True
    image = NamedImage.of(np.zeros((20, 30, 3), np.uint8))
    ious = click_ious(PaintedSquares(), image, target, cap=20)
    assert ious[0] == pytest.approx(25 / 75)
    assert ious[-1] == 1.0
    assert len(click_ious(PaintedSquares(), image, target, cap=20, enough=0.3)) == 1
    assert len(click_ious(PaintedSquares(), image, target, cap=2)) == 2


def test_failures_count_with_the_cap() -> None:
    summary = summarize_clicks([[0.5, 0.82, 0.9], [0.81], [0.2] * 20], cap=20)
    assert summary["NoC@0.80"] == pytest.approx((2 + 1 + 20) / 3)
    assert summary["failed@0.80"] == 1
    assert summary["NoC@0.85"] == pytest.approx((3 + 20 + 20) / 3)
    assert summary["failed@0.85"] == 2
    assert summary["IoU@1"] == pytest.approx((0.5 + 0.81 + 0.2) / 3)
    assert summary["n"] == 3


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=20), min_size=1, max_size=5))
def test_a_higher_threshold_never_needs_fewer_clicks(sequences: list[list[float]]) -> None:
    summary = summarize_clicks(sequences)
    assert 1 <= summary["NoC@0.80"] <= summary["NoC@0.85"] <= 20
