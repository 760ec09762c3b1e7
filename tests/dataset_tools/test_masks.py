"""Masks and COCO codes: equal to pycocotools', exact where they can be, explained where they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from dataset_tools import brush_rle, masks
from dataset_tools.errors import MaskError

Mask = npt.NDArray[np.bool_]
small = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(small)
def test_coco_rle_round_trip_is_exact_and_pycocotools_own(mask: Mask) -> None:
    code = masks.to_coco_rle(mask)
    assert code["counts"].encode() == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert np.array_equal(masks.from_coco(code, *mask.shape), mask)
    assert masks.area_of(code, *mask.shape) == mask.sum()


@given(
    small, st.sampled_from([0, 1, 50]), st.sampled_from([0, 1, 50]), st.sampled_from([0, 50]), st.sampled_from([0, 50])
)
def test_small_objects_have_pycocotools_code_wherever_they_lie(
    part: Mask, above: int, left: int, below: int, right: int
) -> None:
    mask = np.pad(part, ((above, below), (left, right)))
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert masks.to_coco_rle(mask) == {"size": list(mask.shape), "counts": expected}
    runs = brush_rle.pixel_runs(brush_rle.encode(mask), *mask.shape)
    assert masks.rle_of_runs(*runs, *mask.shape) == masks.to_coco_rle(mask)


def test_overlaps_of_codes_are_those_of_their_masks() -> None:
    a, b = np.zeros((2, 20, 30), bool)
    a[2:8, 3:9] = b[5:11, 3:9] = True
    first, second = masks.to_coco_rle(a), masks.to_coco_rle(b)
    assert masks.iou_of(first, second) == (a & b).sum() / (a | b).sum()
    assert masks.share_of(first, second) == (a & b).sum() / a.sum()
    assert np.array_equal(masks.from_coco(masks.union_of([first, second]), 20, 30), a | b)


def test_uncompressed_counts_and_lists_of_codes_are_read() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:4] = True
    counts = [9, 2, 2, 2, 5]  # down the columns
    assert np.array_equal(masks.from_coco({"size": [4, 5], "counts": counts}, 4, 5), mask)
    other = np.zeros((4, 5), bool)
    other[0, 0] = True
    assert np.array_equal(masks.from_coco([masks.to_coco_rle(mask), masks.to_coco_rle(other)], 4, 5), mask | other)
    assert not masks.from_coco([], 4, 5).any()


@given(st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 35)), min_size=3, max_size=8))
def test_polygons_are_rasterised_as_pycocotools_does(points: list[tuple[float, float]]) -> None:
    polygon = [value for point in points for value in point]
    expected = coco.area(coco.merge(coco.frPyObjects([polygon], 30, 40)))
    assert masks.from_coco([polygon], 30, 40).sum() == expected


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [5, 4], "counts": "0"}, "size [5, 4], the image has [height, width] = [4, 5]"),
        ({"size": [4, 5], "counts": "z" * 30}, "damaged"),
        ({"size": [4, 5], "counts": ""}, "truncated or damaged"),
        ({"size": [4, 5], "counts": "5"}, "does not cover 4 x 5"),
        ({"size": [4, 5], "counts": [1, -1]}, "non-negative"),
        ([[1, 2, 3, 4]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, "6"]], "finite numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "finite numbers"),
        ("abc", "list of polygons"),
        (7, "list of polygons"),
    ],
)
def test_damaged_codes_are_explained(segmentation: Any, message: str) -> None:
    with pytest.raises(MaskError) as caught:
        masks.from_coco(segmentation, 4, 5)
    assert message in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_as_counts_is_refused_or_decoded(counts: str) -> None:
    try:
        mask = masks.from_coco({"size": [4, 5], "counts": counts}, 4, 5)
    except MaskError:
        return
    assert mask.shape == (4, 5)


def test_polygons_of_a_mask_cover_it() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:30, 8:35] = True
    (polygon,) = masks.to_polygons(mask)
    again = masks.from_coco([polygon], 40, 40)
    assert (again & mask).sum() / (again | mask).sum() > 0.9
    assert masks.to_polygons(np.zeros((5, 5), bool)) == []


@pytest.mark.parametrize(
    "segmentation",
    [
        [[-1e8, -1e8, 1e8, -1e8, 1e8, 1e8]],
        [[0, 0, 1e300, 0, 1e300, 1e300]],
        [[0, 0, 9, 9] * 60_000],
        [[0, 0, 100, 100, 0, 100] * 12_000],
        {"size": [10, 10], "counts": [1 << 33]},
        {"size": 10, "counts": [100]},
        {"size": {"a": 1}, "counts": [100]},
        {"size": [10, 10], "counts": [-5, 105]},
        {"size": [10, 10], "counts": {"a": 1}},
        {"size": [10, 10], "counts": 6_000_000_000},
    ],
)
def test_nothing_reaches_pycocotools_that_it_would_crash_on(segmentation: Any) -> None:
    for read in (masks.from_coco, masks.area_of, masks.box_of):
        with pytest.raises(MaskError):
            read(segmentation, 10, 10)


def test_masks_of_images_beyond_32_bits_are_refused() -> None:
    with pytest.raises(MaskError, match="pixels"):
        masks.area_of({"size": [1 << 20, 1 << 20], "counts": [1 << 40]}, 1 << 20, 1 << 20)
