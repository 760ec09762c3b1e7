"""The shapes of Label Studio's regions, read and written: brush strokes, polygons, rectangles and ellipses as masks.

Label Studio counts x, y, width and height in percent of the original image; a brush region is a run-length code of the
whole image's RGBA bytes (``dataset_tools.brush_rle``). What has corners is filled by one rule, pycocotools'
(``dataset_tools.masks``), wherever it is read: clicks, export and training see one mask. ``SHAPES`` lists what is read;
a new shape is one entry there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dataset_tools import brush_rle, masks
from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.geometry import Box
from dataset_tools.masks import CocoRle, Mask

__all__ = ["SHAPES", "RegionShape", "brush_code", "code_of", "mask_of", "rectangle_corners", "written"]

Value: TypeAlias = dict[str, Any]
Corners: TypeAlias = npt.NDArray[np.float64]
"""float64[N, 2]: x, y in pixels; (0, 0) is the upper left corner of the first pixel."""

_MOST_CORNERS = 100_000
_ELLIPSE_CORNERS = 360


@dataclass(frozen=True)
class RegionShape:
    """How a kind of region is read and written.

    Attributes:
        read: from a region's ``value``, height and width of the image to the code of the mask.
        write: from a mask and the tolerance in pixels to the values of one region or, where a region can hold one part
            only, of several; None for a shape that is only read.
    """

    read: Callable[[Mapping[str, Any], int, int], CocoRle]
    write: Callable[[Mask, float], list[Value]] | None = None


def mask_of(kind: str, value: Mapping[str, Any], height: int, width: int) -> Mask:
    """The mask bool[height, width] of a region's ``value``; ``kind`` is the region's ``type``.

    Raises:
        DatasetError: no shape of this kind is read, or its coordinates are unusable.
        MaskError: its brush stream is damaged.
    """
    return masks.from_coco(code_of(kind, value, height, width), height, width)


def code_of(kind: str, value: Mapping[str, Any], height: int, width: int) -> CocoRle:
    """The code of :func:`mask_of`."""
    if kind not in SHAPES:
        raise DatasetError(f"regions of type {kind!r} are not read; those of {', '.join(SHAPES)} are")
    try:
        return SHAPES[kind].read(value, height, width)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"a {kind} region has unusable coordinates: {error!r}") from error


def written(mask: Mask, kind: str, tolerance: float = 1.0, *, rotated: bool = False) -> list[Value]:
    """Values of the regions of ``type`` ``kind`` that hold ``mask`` bool[H, W]; none for an empty mask.

    Args:
        mask: of the whole image.
        kind: ``brushlabels``, ``polygonlabels`` or ``rectanglelabels``.
        tolerance: of polygons, see ``masks.to_polygons``.
        rotated: of rectangles: the smallest one, turned any way, in place of the upright one.

    Raises:
        DatasetError: such regions are not written.
    """
    write = SHAPES[kind].write if kind in SHAPES else None
    if write is None:
        raise DatasetError(f"regions of type {kind!r} are not written")
    if rotated and kind == "rectanglelabels" and mask.any():
        return [_turned_rectangle(mask)]
    return write(mask, tolerance) if mask.any() else []


def brush_code(value: Mapping[str, Any]) -> list[int]:
    """The run-length code of a brush region's value.

    Raises:
        DatasetError: it has none.
    """
    code = value.get("rle")
    if not isinstance(code, list):
        raise DatasetError("a brush region has no 'rle' (a list); export with masks (JSON), not as a summary")
    return code


def rectangle_corners(value: Mapping[str, Any], height: int, width: int) -> Corners:
    """The corners of a rectangle's value, which Label Studio turns about its upper left corner, in pixels, clockwise.

    Raises:
        KeyError, TypeError, ValueError: a coordinate is missing or no number.
    """
    x, y, w, h = (float(value[key]) for key in ("x", "y", "width", "height"))
    scale = np.array((width, height)) / 100
    box = np.array(((0, 0), (w, 0), (w, h), (0, h))) * scale
    return _turned(box, value) + np.array((x, y)) * scale


def _turned(points: Corners, value: Mapping[str, Any]) -> Corners:
    angle = np.radians(float(value.get("rotation") or 0))
    if not (np.isfinite(angle) and np.isfinite(points).all()):
        raise ValueError("a coordinate or the rotation is no finite number")
    return points @ np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))


def _polygon_corners(value: Mapping[str, Any], height: int, width: int) -> Corners:
    if len(value["points"]) > _MOST_CORNERS:
        raise ValueError(f"{len(value['points'])} points, more than {_MOST_CORNERS}")
    corners: Corners = np.asarray(value["points"], np.float64) * (width / 100, height / 100)
    return corners


def _ellipse_corners(value: Mapping[str, Any], height: int, width: int) -> Corners:
    """A fine polygon; Label Studio turns an ellipse about its centre."""
    x, y, across, down = (float(value[key]) for key in ("x", "y", "radiusX", "radiusY"))
    scale = np.array((width, height)) / 100
    turns = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    rim = np.stack((np.cos(turns), np.sin(turns)), axis=1) * np.array((across, down)) * scale
    return _turned(rim, value) + np.array((x, y)) * scale


def _filled(
    corners: Callable[[Mapping[str, Any], int, int], Corners],
) -> Callable[[Mapping[str, Any], int, int], CocoRle]:
    def read(value: Mapping[str, Any], height: int, width: int) -> CocoRle:
        found = corners(value, height, width)
        if found.ndim != 2 or found.shape[1] != 2 or len(found) < 3 or not np.isfinite(found).all():
            raise ValueError(f"it needs at least three points x, y; it has the shape {found.shape}")
        try:
            masks.require_drawable(found, height, width)
        except MaskError as error:
            raise ValueError(str(error)) from None
        return masks.rle_of([found.reshape(-1).tolist()], height, width)

    return read


def _read_brush(value: Mapping[str, Any], height: int, width: int) -> CocoRle:
    return masks.rle_of_runs(*brush_rle.pixel_runs(brush_code(value), height, width), height, width)


def _write_brush(mask: Mask, _tolerance: float) -> list[Value]:
    return [{"format": "rle", "rle": brush_rle.encode(mask)}]


def _write_polygons(mask: Mask, tolerance: float) -> list[Value]:
    height, width = mask.shape
    return [
        {
            "points": [[100 * x / width, 100 * y / height] for x, y in zip(polygon[::2], polygon[1::2], strict=True)],
            "closed": True,
        }
        for polygon in masks.to_polygons(mask, tolerance)
    ]


def _write_rectangle(mask: Mask, _tolerance: float) -> list[Value]:
    height, width = mask.shape
    box = Box.of_mask(mask)
    return [
        {
            "x": 100 * box.x0 / width,
            "y": 100 * box.y0 / height,
            "width": 100 * box.width / width,
            "height": 100 * box.height / height,
            "rotation": 0,
        }
    ]


def _turned_rectangle(mask: Mask) -> Value:
    """Label Studio turns a rectangle clockwise about the corner that it names."""
    height, width = mask.shape
    corners = masks.smallest_rectangle(mask)
    right, down = corners[1] - corners[0], corners[2] - corners[1]
    if right[0] * down[1] - right[1] * down[0] < 0:  # the corners go round the other way
        corners = corners[::-1]
    first = int(np.argmin([abs(np.arctan2(y, x)) for x, y in np.roll(corners, -1, axis=0) - corners]))
    corners = np.roll(corners, -first, axis=0)  # the side that is turned least is the width
    (x, y), across, down = corners[0], corners[1] - corners[0], corners[2] - corners[1]
    return {
        "x": 100 * float(x) / width,
        "y": 100 * float(y) / height,
        "width": 100 * float(np.hypot(*across)) / width,
        "height": 100 * float(np.hypot(*down)) / height,
        "rotation": float(np.degrees(np.arctan2(across[1], across[0]))),
    }


SHAPES: Mapping[str, RegionShape] = {
    "brushlabels": RegionShape(_read_brush, _write_brush),
    "polygonlabels": RegionShape(_filled(_polygon_corners), _write_polygons),
    "rectanglelabels": RegionShape(_filled(rectangle_corners), _write_rectangle),
    "ellipselabels": RegionShape(_filled(_ellipse_corners)),
}
"""By the region's ``type``."""
