"""Masks as arrays, COCO run-length codes and polygons.

Masks are bool[H, W]. The rasterisation rule is pycocotools' everywhere: polygon corners in pixels with pixel (x, y)
covering [x, x + 1) x [y, y + 1); each edge is traced at five times the resolution and a pixel column belongs to the
polygon between the crossings found. Several polygons of one object are united. Run-length codes run down the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from dataset_tools.brush_rle import filled
from dataset_tools.errors import MaskError
from dataset_tools.geometry import Box

Mask: TypeAlias = npt.NDArray[np.bool_]
CocoRle: TypeAlias = dict[str, Any]
"""``{"size": [height, width], "counts": str}``: COCO's compressed code."""
Segmentation: TypeAlias = Mapping[str, Any] | Sequence[Any]
"""A COCO ``segmentation`` value: polygons, or a dict with compressed or plain counts."""

_MUCH = 4
"""How many times larger an image is than an object's box if its code is made of the box alone."""
_SAME, _SAME_SMALL = 0.99, 0.96
"""Least IoU of a part of a mask and its simplified polygon; of one that is smaller than ``_SMALL`` each way."""
_MOST_PIXELS = 1 << 31
_MOST_CORNERS = 100_000
_FARTHEST = 10  # widths or heights outside of the image, beyond which coordinates are no object's
_LONGEST = 2_000_000
_SMALL = 16  # pixels
_LEAST_TOLERANCE = 0.2  # pixels; below it all corners are kept anyway


def to_coco_rle(mask: Mask) -> CocoRle:
    """COCO's compressed run-length code of ``mask`` bool[H, W], with ``counts`` as ASCII text (JSON-ready)."""
    x0, y0, x1, y1 = (int(side) for side in Box.of_mask(mask))
    if 0 < _MUCH * (x1 - x0) * (y1 - y0) < mask.size:
        return _placed(mask[y0:y1, x0:x1], y0, x0, *mask.shape)
    # OpenCV transposes several times faster than numpy; pycocotools runs down the columns.
    columns = cv2.transpose(np.ascontiguousarray(mask).view(np.uint8)).T
    code = coco.encode(columns)
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def rle_of_runs(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], height: int, width: int) -> CocoRle:
    """:func:`to_coco_rle` of the mask [height, width] that is True in these runs of pixels, counted row by row.

    Args:
        starts: int64[N], in order.
        ends: int64[N]: the pixel before which each run ends, not before it begins and not after the next one does.
        height: of the image.
        width: of the image.
    """
    if not starts.size:
        return to_coco_rle(np.zeros((height, width), bool))
    rows = starts // width
    left, right = starts - rows * width, ends - rows * width
    x0, x1 = int(left.min()), int(right.max())
    if x1 > width:  # a run goes on in the next row
        x0, x1 = 0, width
    y0, y1 = int(rows[0]), int(ends[-1] - 1) // width + 1
    down, across = y1 - y0, x1 - x0
    if _MUCH * down * across >= height * width:
        return to_coco_rle(filled(starts, ends, height * width).reshape(height, width))
    moved = x0 + y0 * width + (rows - y0) * (width - across)
    return _placed(filled(starts - moved, ends - moved, down * across).reshape(down, across), y0, x0, height, width)


def _placed(part: Mask, y0: int, x0: int, height: int, width: int) -> CocoRle:
    """The code of a mask [height, width] that is ``part`` from row ``y0`` and column ``x0`` on, and False elsewhere.

    ``part`` is True somewhere.
    """
    down, across = part.shape
    columns = np.zeros((across, down + 1), bool)  # the row below ends the runs of every column
    columns[:, :down] = part.T
    flat = columns.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat[0]:
        edges = np.concatenate((np.zeros(1, np.int64), edges))
    column, row = np.divmod(edges, down + 1)
    places = (column + x0) * height + row + y0
    if down == height:  # a run that reaches the lower border may go on at the top of the next column
        apart = np.flatnonzero(places[1:-1:2] != places[2::2])
        inner = np.stack((2 * apart + 1, 2 * apart + 2), axis=1).reshape(-1)
        places = np.concatenate((places[:1], places[inner], places[-1:]))
    counts = np.empty(len(places) + 1, np.int64)
    counts[0], counts[-1] = places[0], height * width - places[-1]
    np.subtract(places[1:], places[:-1], out=counts[1:-1])
    plain = {"size": [height, width], "counts": counts.tolist() if counts[-1] else counts[:-1].tolist()}
    code = coco.frPyObjects(plain, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def _compressed(segmentation: Segmentation, height: int, width: int) -> dict[str, Any]:
    """One compressed RLE (counts as bytes) for any COCO segmentation value of an image height x width."""
    if height < 1 or width < 1 or height * width >= _MOST_PIXELS:
        raise MaskError(f"an image of {width} x {height} pixels has no masks that can be read")
    if isinstance(segmentation, Mapping):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if not isinstance(size, list | tuple) or list(size) != [height, width]:
            raise MaskError(
                f"the run-length code is for size {size}, the image has [height, width] = {[height, width]}"
            )
        if isinstance(counts, str | bytes):
            counts = counts.encode() if isinstance(counts, str) else counts
            # pycocotools does not check a compressed code, it decodes a damaged one into other memory or garbage.
            if int(_counts_of(counts).sum()) != height * width:
                raise MaskError(f"the run-length code does not cover {height} x {width} pixels; it is damaged")
            return {"size": [height, width], "counts": counts}
        if not isinstance(counts, Sequence) or not all(isinstance(c, int) and c >= 0 for c in counts):
            raise MaskError(f"counts must be text or a list of non-negative integers, got {type(counts).__name__}")
        if sum(counts) != height * width:
            raise MaskError(f"the counts cover {sum(counts)} pixels, the image has {height * width}")
        plain: dict[str, Any] = coco.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
        return plain
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise MaskError(f"a segmentation is a list of polygons or a run-length dict, got {type(segmentation).__name__}")
    if not segmentation:
        return dict(coco.encode(np.zeros((height, width), np.uint8, order="F")))
    if all(isinstance(part, Mapping) for part in segmentation):  # the REFER dialect: a list of RLE dicts
        return dict(coco.merge([_compressed(part, height, width) for part in segmentation]))
    for number, polygon in enumerate(segmentation):
        if not isinstance(polygon, Sequence) or isinstance(polygon, str) or len(polygon) < 6 or len(polygon) % 2:
            raise MaskError(
                f"polygon {number} must be a list of at least 3 points x, y, x, y, ...; got {polygon!r:.80}"
            )
        if not all(isinstance(value, int | float) and np.isfinite(value) for value in polygon):
            raise MaskError(f"polygon {number} holds something other than finite numbers: {str(polygon[:8])[:80]}")
        require_drawable(np.asarray(polygon, np.float64).reshape(-1, 2), height, width)
    # Four numbers would be read as a box by pycocotools; the length check above keeps polygons polygons.
    return dict(coco.merge(coco.frPyObjects([list(polygon) for polygon in segmentation], height, width)))


def require_drawable(corners: npt.NDArray[np.float64], height: int, width: int) -> None:
    """Refuse a polygon that pycocotools would crash on, or take memory for by the length of its outline.

    Args:
        corners: float64[N, 2]: x, y in pixels.
        height: of the image.
        width: of the image.

    Raises:
        MaskError: it has too many corners, lies far outside of the image, or its outline is far too long.
    """
    if len(corners) > _MOST_CORNERS:
        raise MaskError(f"a polygon has {len(corners)} points, more than {_MOST_CORNERS}")
    if (np.abs(corners) > _FARTHEST * np.array((width, height))).any():
        raise MaskError(f"points of a polygon lie farther than {_FARTHEST} times the image's size outside of it")
    if np.abs(corners - np.roll(corners, 1, axis=0)).sum() > _LONGEST:
        raise MaskError(f"a polygon's outline is longer than {_LONGEST} pixels")


def from_coco(segmentation: Segmentation, height: int, width: int) -> Mask:
    """The mask bool[height, width] of a COCO segmentation: polygons, plain or compressed RLE, or a list of RLEs.

    Raises:
        MaskError: the value is none of these, is damaged, or is of another size than the image.
    """
    counts = _counts_of(_compressed(segmentation, height, width)["counts"])
    # pycocotools' own decode relies on an array protocol that numpy has deprecated, and is no faster.
    values = np.arange(len(counts), dtype=np.uint8) & 1
    return np.ascontiguousarray(np.repeat(values.astype(bool), counts).reshape(width, height).T)


def _counts_of(compressed: bytes) -> npt.NDArray[np.int64]:
    """The run lengths in COCO's compressed text: five bits a character, from the fourth on stored as differences."""
    digits = np.frombuffer(compressed, dtype=np.uint8).astype(np.int64) - 48
    if not digits.size or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise MaskError(f"the compressed run-length code {compressed!r:.60} is truncated or damaged")
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    length = last - first + 1
    if length.max() > 8:
        raise MaskError(
            f"the compressed run-length code {compressed!r:.60} holds a number of {length.max()} characters"
        )
    place = np.arange(len(digits)) - np.repeat(first, length)
    counts = np.add.reduceat((digits & 31) << (5 * place), first)
    counts -= np.where(digits[last] & 16, np.int64(1) << (5 * length), 0)
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    if counts.min() < 0:
        raise MaskError(f"the run-length code has a negative run ({counts.min()}); it is damaged")
    return counts


def rle_of(segmentation: Segmentation, height: int, width: int) -> CocoRle:
    """:func:`to_coco_rle` of :func:`from_coco`; raises like it."""
    if isinstance(segmentation, Mapping) or any(isinstance(part, Mapping) for part in segmentation):
        return to_coco_rle(from_coco(segmentation, height, width))  # others may write one mask in several ways
    code = _compressed(segmentation, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def iou_of(first: CocoRle, second: CocoRle) -> float:
    """Intersection over union of two codes of one size, 0 if both are empty."""
    return float(coco.iou([first], [second], [0])[0, 0])


def share_of(inner: CocoRle, outer: CocoRle) -> float:
    """How much of ``inner``, which is not empty, lies in ``outer``; codes of one size."""
    return float(coco.iou([inner], [outer], [1])[0, 0])  # of a crowd COCO takes the intersection over the first's area


def union_of(codes: Sequence[CocoRle]) -> CocoRle:
    """The union of at least one code; all of one size."""
    height, width = codes[0]["size"]
    return {"size": [height, width], "counts": merge([code["counts"] for code in codes], height, width)}


def area_of(segmentation: Segmentation, height: int, width: int) -> int:
    """Number of pixels of a COCO segmentation, counted on its run-length code; raises like :func:`from_coco`."""
    return int(coco.area(_compressed(segmentation, height, width)))


def box_of(segmentation: Segmentation, height: int, width: int) -> Box:
    """The tightest box around a COCO segmentation, read off its run-length code; raises like :func:`from_coco`."""
    x, y, w, h = (float(value) for value in coco.toBbox(_compressed(segmentation, height, width)))
    return Box(x, y, x + w, y + h) if w and h else Box(0.0, 0.0, 0.0, 0.0)


def merge(codes: Sequence[str], height: int, width: int) -> str:
    """The union of compressed ``counts`` of one image, as compressed counts; raises like :func:`from_coco`."""
    parts = [_compressed({"size": [height, width], "counts": counts}, height, width) for counts in codes]
    merged = coco.merge(parts) if parts else coco.encode(np.zeros((height, width), np.uint8, order="F"))
    return str(merged["counts"].decode("ascii"))


def to_polygons(mask: Mask, tolerance: float = 0.0) -> list[list[float]]:
    """Outlines of the parts of ``mask`` as COCO polygons [x, y, x, y, ...] in pixels, along the edges of the pixels.

    :func:`from_coco` of a part's polygon gives the part back, its holes filled: exactly for tolerance 0, else with an
    IoU of at least 0.99 (0.96 for parts of less than 16 pixels in width and height). Use :func:`to_coco_rle` for masks
    with holes.

    Args:
        mask: bool[H, W].
        tolerance: largest distance in pixels between an outline and its polygon; 0 keeps every corner. It is made
            smaller for parts that it would change too much.
    """
    return [_simplified(steps, tolerance).reshape(-1).tolist() for steps in _outlines(mask)]


def _outlines(mask: Mask) -> Iterator[npt.NDArray[np.int32]]:
    """The outer outline int32[N, 2] of each 8-connected part, in half pixels (x, y).

    Corners of pixels are even, the middles of their edges have one odd coordinate; every edge has its middle.
    """
    x0, y0, x1, y1 = (int(side) for side in Box.of_mask(mask))
    part = np.ascontiguousarray(mask[y0:y1, x0:x1]).view(np.uint8)
    if not part.size:
        return
    # On a grid twice as fine a pixel becomes 3 x 3 points, its borders among them.
    fine = np.zeros((2 * part.shape[0] + 1, 2 * part.shape[1] + 1), np.uint8)
    for y in range(3):
        for x in range(3):
            fine[y : y + 2 * part.shape[0] : 2, x : x + 2 * part.shape[1] : 2] |= part
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        points = contour[:, 0]
        # OpenCV cuts inner corners: the corner, which is even, goes back between the two points around it.
        inner = np.where(points % 2 == 0, points, np.roll(points, -1, axis=0))
        both = np.stack((points, inner), axis=1).reshape(-1, 2)
        yield both[(both != np.roll(both, 1, axis=0)).any(axis=1)] + np.array((2 * x0, 2 * y0), np.int32)


def _simplified(steps: npt.NDArray[np.int32], tolerance: float) -> npt.NDArray[np.float64]:
    """An outline as few corners float64[N, 2], as few as leave the filled polygon the same thing."""
    even = (steps % 2 == 0).all(axis=1)
    corners: npt.NDArray[np.float64] = steps[even] / 2
    before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    corners = corners[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    if tolerance <= 0 or len(corners) <= 4:
        return corners
    # Corners keep what is rectangular, middles of edges lie evenly on both sides of what is oblique or round.
    curves = (corners.astype(np.float32), (steps[~even] / 2).astype(np.float32))
    start = corners.min(axis=0)
    size = corners.max(axis=0) - start
    wanted = _SAME if size.max() >= _SMALL else _SAME_SMALL
    exact = _filled(corners - start, size)
    while tolerance > _LEAST_TOLERANCE:
        found: list[npt.NDArray[np.float64]] = [
            cv2.approxPolyDP(curve, tolerance, True)[:, 0].astype(np.float64) for curve in curves
        ]
        for fewer in sorted(found, key=len):
            if 3 <= len(fewer) < len(corners) and iou_of(exact, _filled(fewer - start, size)) >= wanted:
                return fewer
        tolerance *= 0.7
    return corners


def _filled(corners: npt.NDArray[Any], size: npt.NDArray[np.float64]) -> Any:
    return coco.frPyObjects([corners.reshape(-1).astype(float).tolist()], int(size[1]), int(size[0]))[0]


def smallest_rectangle(mask: Mask) -> npt.NDArray[np.float64]:
    """The corners float64[4, 2] of the smallest rectangle, turned any way, around all pixels of ``mask`` bool[H, W].

    They go round in one direction, and may lie outside of the image.
    """
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in to_polygons(mask)])
    return np.asarray(cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32))), np.float64)
