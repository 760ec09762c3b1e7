from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from backend.pipeline.segmentation.logits import moved, upsampled
from backend.pipeline.types import Box

SIDE, LOW = 256, 64


def blob(rng: np.random.Generator, y: float, x: float, radius: float) -> npt.NDArray[np.float32]:
    rows, columns = np.mgrid[:LOW, :LOW]
    noise = rng.normal(0, 0.4, (LOW, LOW))
    return np.asarray(radius - np.hypot(rows - y, columns - x) + noise, np.float32)


@pytest.mark.parametrize(
    ("size", "input_size"),
    [
        ((256, 256), (256, 256)),
        ((1024, 512), (256, 128)),
        ((2048, 2048), (256, 256)),
        ((200, 200), (256, 256)),
        ((300, 500), (154, 256)),
        ((512, 301), (256, 150)),
    ],
)
@pytest.mark.parametrize(("y", "x", "radius"), [(30, 20, 9), (0, 0, 6), (63, 63, 5), (12, 31, 60), (20, 20, 0.4)])
def test_the_kept_part_is_what_torch_gives_and_the_rest_lies_below(
    size: tuple[int, int], input_size: tuple[int, int], y: float, x: float, radius: float
) -> None:
    low_res = blob(np.random.default_rng(0), y, x, radius)
    at_input = functional.interpolate(torch.from_numpy(low_res)[None, None], (SIDE, SIDE), mode="bilinear")
    at_input = at_input[..., : input_size[0], : input_size[1]]
    expected = functional.interpolate(at_input, size, mode="bilinear")[0, 0].numpy()

    placed = upsampled(low_res, SIDE, input_size, size, -1.0)
    whole = np.full(size, -np.inf, np.float32)
    height, width = placed.logits.shape
    whole[placed.y0 : placed.y0 + height, placed.x0 : placed.x0 + width] = placed.logits

    for threshold in (-1.0, 0.0, 1.0):
        assert np.array_equal(whole > threshold, expected > threshold)


def test_only_the_objects_part_is_made() -> None:
    small = upsampled(blob(np.random.default_rng(0), 30, 20, 4), SIDE, (SIDE, SIDE), (2048, 2048), -1.0)
    assert 0 < small.logits.size < 2048**2 / 8
    nothing = upsampled(np.full((LOW, LOW), -5, np.float32), SIDE, (SIDE, SIDE), (2048, 2048), -1.0)
    assert nothing.logits.size == 0
    beside = upsampled(blob(np.random.default_rng(0), 60, 20, 2), SIDE, (128, SIDE), (256, 512), -1.0)
    assert beside.logits.size == 0


def test_moved_logits_say_the_same_of_the_same_place() -> None:
    logits = np.where(np.hypot(*(np.mgrid[:LOW, :LOW] - 20)) < 10, 3, -3).astype(np.float32)
    before = Box(100, 100, 164, 164)
    assert np.allclose(moved(logits, before, before), logits)
    further = moved(logits, before, Box(90, 110, 154, 174))
    assert np.allclose(further[:54, 10:], logits[10:, :54])
    assert (further[:, :9] == -6).all(), "left of the window before"
    half = moved(logits, before, Box(68, 68, 196, 196))
    assert half[26, 26] == 3, "(120, 120), in the middle of the disc"
    assert half[26, 16] == -3
    assert half[2, 2] == half[60, 60] == -6
