"""Metrics: figures worked out by hand, and each convention's difference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dataset_tools import metrics
from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.metrics import Overlap

Mask = npt.NDArray[np.bool_]


def test_figures_by_hand() -> None:
    summary = metrics.summarize([Overlap(50, 100), Overlap(90, 100), Overlap(0, 0), Overlap(7, 10)])
    assert summary == pytest.approx(
        {"n": 4, "mIoU": (0.5 + 0.9 + 0 + 0.7) / 4, "oIoU": 147 / 210}
        | {"P@0.5": 0.75, "P@0.6": 0.5, "P@0.7": 0.5, "P@0.8": 0.25, "P@0.9": 0.25}
    )


def test_segearth_counts_empty_as_one_and_is_strict() -> None:
    summary = metrics.summarize([Overlap(5, 10), Overlap(0, 0)], metrics.convention("segearth"))
    assert summary["mIoU"] == 0.75
    assert summary["P@0.5"] == 0.5  # 0.5 > 0.5 does not count, the empty pair does
    assert metrics.summarize([Overlap(5, 10)])["P@0.5"] == 1.0


def test_rmsin_counts_at_480() -> None:
    predicted, target = np.zeros((960, 960), bool), np.zeros((960, 960), bool)
    predicted[:, :480] = True
    target[:, 1:481] = True  # nearest takes every second column: 0, 2, 4 ...
    overlap = metrics.convention("rmsin").overlap(predicted, target)
    assert overlap == Overlap(239 * 480, 241 * 480)
    assert "480 x 480" in metrics.convention("rmsin").describe()


def test_resizing_is_torch_nearest() -> None:
    mask = np.random.default_rng(0).random((801, 787)) < 0.5
    rows = np.floor(np.arange(480) * (801 / 480)).astype(int)
    columns = np.floor(np.arange(480) * (787 / 480)).astype(int)
    overlap = metrics.convention("rmsin").overlap(mask, mask)
    assert overlap == Overlap(*[int(mask[np.ix_(rows, columns)].sum())] * 2)


@given(arrays(bool, (6, 7)), arrays(bool, (6, 7)))
def test_iou_is_symmetric_and_bounded(a: Mask, b: Mask) -> None:
    value = metrics.iou(a, b)
    assert value == metrics.iou(b, a)
    assert 0 <= value <= 1
    assert metrics.iou(a, a) == float(a.any())
    assert value == pytest.approx((a & b).sum() / (a | b).sum() if (a | b).any() else 0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda t: Overlap(t[0], sum(t))), max_size=8))
def test_shares_fall_with_the_threshold(overlaps: list[Overlap]) -> None:
    summary = metrics.summarize(overlaps)
    shares = [summary[f"P@{t}"] for t in metrics.THRESHOLDS]
    assert shares == sorted(shares, reverse=True)
    assert summary["n"] == len(overlaps)


def test_grouping_keeps_order() -> None:
    assert metrics.group(["b1", "a1", "b2"], key=lambda item: item[0]) == {"b": ["b1", "b2"], "a": ["a1"]}


def test_mistakes_are_explained() -> None:
    with pytest.raises(MaskError, match=r"\(2, 3\), the target \(3, 2\)"):
        metrics.iou(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
    with pytest.raises(DatasetError, match="'paper'; choose one of native, rmsin, segearth"):
        metrics.convention("paper")
