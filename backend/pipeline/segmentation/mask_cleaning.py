"""Masks that the editor can live with: no specks, no pin-holes.

Parts and holes are found on the runs of the mask's rows, some thousand of them, instead of on its millions of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from backend.pipeline.types import Mask, Point, Prompts
from dataset_tools import brush_rle
from dataset_tools.geometry import Box

__all__ = ["clean_mask", "shown_mask"]

BOX_SLACK = 0.1
"""Share of a box's sides by which an object may reach out of it."""
LEAST_SLACK = 2.0
"""The same in pixels, at least."""

Numbers = npt.NDArray[np.int64]
Corners = npt.NDArray[np.float64]


def shown_mask(
    mask: Mask, prompts: Prompts, speck_area: int, hole_area: int, *, new: bool, drawn: Corners | None = None
) -> Mask:
    """The mask bool[H, W] that the editor shows for clicks and a box: cleaned, and as they say.

    What an annotator clicked on is in it, what was clicked away stays out although it is small, and of a box the mask
    keeps to it: what reaches further out than boxes are drawn by hand is another object.

    Args:
        mask: bool[H, W], the segmenter's.
        prompts: what led to it.
        speck_area, hole_area: see ``clean_mask``.
        new: no region is refined: without a box the clicked parts alone are the object. A region may have parts that
            the annotator knows of, a box holds them all.
        drawn: float64[4, 2], the corners (x, y) of a box that may be turned, in their order; None: those of the
            prompts' box.
    """
    box = prompts.box
    if box is not None:
        upright = np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)])
        mask = _around(mask, upright if drawn is None else drawn)
    points = [Point(float(x), float(y)) for x, y in prompts.points]
    on = [point for point, label in zip(points, prompts.point_labels, strict=True) if label == 1]
    off = [point for point, label in zip(points, prompts.point_labels, strict=True) if label != 1]
    return clean_mask(mask, speck_area, hole_area, on, off, only_clicked=new and box is None)


def _around(mask: Mask, corners: Corners) -> Mask:
    """The pixels of a mask within a rectangle, or so near that a box drawn by hand may have missed them."""
    center = corners.mean(axis=0)
    grown = np.zeros((4, 2))
    for along, signs in ((corners[1] - corners[0], (-1, 1, 1, -1)), (corners[3] - corners[0], (-1, -1, 1, 1))):
        length = max(float(np.linalg.norm(along)), 1e-6)
        half = length / 2 + max(BOX_SLACK * length, LEAST_SLACK)
        grown += np.array(signs)[:, None] * along / length * half
    grown += center
    x0, y0 = (max(int(value), 0) for value in grown.min(axis=0))
    x1, y1 = (int(value) + 2 for value in grown.max(axis=0))
    part = mask[y0:y1, x0:x1]
    inside = np.zeros(part.shape, np.uint8)
    # OpenCV's pixel centres lie at whole numbers; four binary digits after the point count.
    cv2.fillConvexPoly(inside, np.round((grown - (x0, y0) - 0.5) * 16).astype(np.int32), 1, shift=4)
    kept = np.zeros_like(mask)
    np.logical_and(part, inside.view(np.bool_), out=kept[y0:y1, x0:x1])
    return kept


def clean_mask(
    mask: Mask,
    speck_area: int,
    hole_area: int,
    clicked: Sequence[Point] = (),
    cleared: Sequence[Point] = (),
    *,
    only_clicked: bool = False,
) -> Mask:
    """``mask`` bool[H, W] without parts of fewer than ``speck_area`` pixels and holes of fewer than ``hole_area``.

    Parts are connected over corners, holes over sides. The largest part is kept whatever its size (a vehicle may have
    ten pixels), and so is every part under a point of ``clicked`` (x, y in pixels); a hole under one of ``cleared`` is
    not filled. With ``only_clicked`` nothing but
    those parts is kept, where there is one: a new object is what was clicked. A mask without specks and holes is
    returned as it is.
    """
    box = Box.of_mask(mask)
    if not box.area:
        return mask
    rows, height, width = slice(int(box.y0), int(box.y1)), int(box.height), mask.shape[1]
    if box.x0 == 0 and box.x1 == width:  # runs would go on from one row to the next
        wider = clean_mask(
            np.pad(mask[rows], 1),
            speck_area,
            hole_area,
            [Point(p.x + 1, p.y - rows.start + 1) for p in clicked],
            [Point(p.x + 1, p.y - rows.start + 1) for p in cleared if box.contains(p)],
            only_clicked=only_clicked,
        )
        cleaned = np.zeros_like(mask)
        cleaned[rows] = wider[1:-1, 1:-1]
        return cleaned
    strip = _Runs.of(mask[rows])
    parts = strip.labels(width, over_corners=True)
    areas = np.bincount(parts, strip.lengths)
    keep = areas >= speck_area
    keep[areas.argmax()] = True
    places = [int(point.y - rows.start) * width + int(point.x) for point in clicked if box.contains(point)]
    under = [parts[run] for place in places if (run := strip.at(place)) is not None]
    if only_clicked and under:
        keep[:] = False
    keep[under] = True
    specks = strip.choose(~keep[parts])
    kept = strip.choose(keep[parts])

    around = kept.gaps(height * width)
    regions = around.labels(width, over_corners=False)
    is_hole = np.bincount(regions, around.lengths) < hole_area
    # One column at the image's side is empty, so that everything outside is connected with one of the two ends.
    is_hole[regions[0 if box.x0 > 0 else -1]] = False
    is_hole[regions[(around.starts < width) | (around.ends > (height - 1) * width)]] = False
    for point in cleared:
        if box.contains(point) and (run := around.at(int(point.y - rows.start) * width + int(point.x))) is not None:
            is_hole[regions[run]] = False
    holes = around.choose(is_hole[regions])
    if not len(specks.starts) and not len(holes.starts):
        return mask
    cleaned = mask.copy()
    pixels = cleaned[rows].reshape(-1)  # whole rows are contiguous: a view
    pixels[specks.pixels()] = False
    pixels[holes.pixels()] = True
    return cleaned


@dataclass(frozen=True, eq=False)
class _Runs:
    """Pixels of a strip of rows as runs of their positions, counted row by row: ``starts`` <= position < ``ends``."""

    starts: Numbers
    ends: Numbers

    @classmethod
    def of(cls, strip: Mask) -> _Runs:
        """The true pixels; a run must not go on from one row to the next."""
        return cls(*brush_rle.mask_runs(strip))

    @property
    def lengths(self) -> Numbers:
        return self.ends - self.starts

    def choose(self, chosen: npt.NDArray[np.bool_]) -> _Runs:
        return _Runs(self.starts[chosen], self.ends[chosen])

    def at(self, position: int) -> int | None:
        """The run that holds a position."""
        run = int(np.searchsorted(self.starts, position, side="right")) - 1
        return run if run >= 0 and position < self.ends[run] else None

    def gaps(self, size: int) -> _Runs:
        """What lies before, between and after the runs of a strip of ``size`` pixels."""
        starts, ends = np.concatenate(([0], self.ends)), np.append(self.starts, size)
        return _Runs(starts, ends).choose(ends > starts)

    def labels(self, width: int, *, over_corners: bool) -> Numbers:
        """For every run the number of the connected part that it belongs to, in rows of ``width`` pixels."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        # The runs that touch a run from below follow one another: from the first one that ends late enough to the last
        # one that begins early enough.
        reach = int(over_corners)
        first = np.searchsorted(self.ends, self.starts + width - reach, side="right")
        last = np.searchsorted(self.starts, self.ends + width + reach, side="left")
        count = np.maximum(last - first, 0)
        above = np.repeat(np.arange(len(count)), count)
        below = np.arange(len(above)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
        edges = coo_array((np.ones(len(above), np.bool_), (above, below)), shape=(len(count), len(count)))
        found: Numbers = connected_components(edges, directed=False)[1].astype(np.int64)
        return found

    def pixels(self) -> Numbers:
        """All positions in the runs."""
        lengths = self.lengths
        offsets = np.repeat(self.starts - (np.cumsum(lengths) - lengths), lengths)
        return np.asarray(np.arange(len(offsets)) + offsets, np.int64)
