"""Clicks that a correction costs, counted with a real decoder (random weights: it never gets there, but must go on)."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from backend.learning.click_corrections import clicks_to
from backend.pipeline.types import Mask
from dataset_tools.metrics import iou
from tests.server.tiny import tiny_pipeline


def square(x: int, y: int, side: int) -> Mask:
    mask = np.zeros((120, 160), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def test_what_is_good_enough_costs_nothing() -> None:
    segmenter = tiny_pipeline().segmenter
    target = square(20, 20, 40)
    embed = partial(segmenter.embed, np.zeros((120, 160, 3), np.uint8))
    assert clicks_to(segmenter, embed, target, target, enough=0.85, cap=5) == 0


@pytest.mark.parametrize("start", [None, square(90, 70, 45), square(10, 10, 100), square(30, 30, 20)])
def test_the_count_ends_at_the_cap_wherever_the_pre_label_lies(start: Mask | None) -> None:
    segmenter = tiny_pipeline().segmenter
    pixels = np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)
    embed = partial(segmenter.embed, pixels)
    assert 1 <= clicks_to(segmenter, embed, square(15, 20, 30), start, enough=0.99, cap=6) <= 6


def test_iou_of_nothing_is_nothing() -> None:
    assert iou(square(0, 0, 0), square(0, 0, 0)) == 0.0
    assert iou(square(0, 0, 10), square(0, 0, 20)) == pytest.approx(0.25)
