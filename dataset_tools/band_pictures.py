"""Values of a picture's bands -> uint8[H, W, 3] RGB: transparency, choice of bands, stretching.

The rules stand in ``image_files``.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_tools.errors import ImageError
from dataset_tools.tiff_bands import Layout

__all__ = ["BANDS", "TRANSPARENT", "black_and_white", "compose", "levels", "turned"]

RGB = npt.NDArray[np.uint8]
BANDS = "PSLG_BANDS"
"""Variable with the bands to show where no argument names them; child processes inherit it."""
TRANSPARENT = 0.95
"""A band tagged as transparency is that if at least this share of its values is 0 or its largest."""
_PERCENTILES = (0.5, 99.5)
_MIDDLE_GRAY = 128
_SAMPLED = 4_000_000
_ROWS = 256
_TOLD, _REMEMBERED = 20, 10_000

_log = logging.getLogger(__name__)
_told: Counter[str] = Counter()


def compose(values: npt.NDArray[Any], how: Layout, bands: tuple[int, int, int] | None, name: str) -> RGB:
    """The upright picture, writable.

    Args:
        values: [height, width, bands], not turned.
        how: their layout.
        bands: of more than three, those to show as red, green and blue, counted from 1.
        name: of the file, for the log.

    Raises:
        ImageError: there are fewer bands than ``bands`` names.
    """
    alpha = None
    if how.alpha is not None:
        alpha = _opacity(values[:, :, how.alpha])
        if alpha is None:
            _tell(
                "alpha",
                name,
                f"band {how.alpha + 1} is tagged as transparency, but its values are a band's: not used as such",
            )
    colors = [band for band in range(how.bands) if alpha is None or band != how.alpha]
    chosen = _chosen(colors, bands, name)
    first, step = chosen[0], (chosen[1] - chosen[0] if len(chosen) > 1 else 1)
    evenly = step > 0 and chosen == list(range(first, first + step * len(chosen), step))
    # A view where that can be had, not a second copy of all values.
    shown = values[:, :, first : chosen[-1] + 1 : step] if evenly else values[:, :, chosen]
    stretch = None if values.dtype == np.uint8 else _stretch(shown, alpha, how, name)
    rgb = np.empty((*values.shape[:2], 3), np.uint8)
    for top in range(0, len(values), _ROWS):
        rows = slice(top, top + _ROWS)
        part, opacity = shown[rows], None if alpha is None else alpha[rows]
        if stretch is not None:
            valid = _valid(part, opacity, how)
            part = levels(part, *stretch) if stretch else np.full(part.shape, 255, np.uint8)
            opacity = np.where(valid, np.float32(1) if opacity is None else opacity, np.float32(0))
        if how.inverted:
            part = 255 - part
        if opacity is not None and not (opacity == 1).all():
            share = opacity[:, :, None]
            colored = part if how.premultiplied else part * share
            part = np.clip(np.rint(colored + 255 * (1 - share)), 0, 255)
        rgb[rows] = part
    return turned(rgb, how.orientation)


def black_and_white(sample: npt.NDArray[Any]) -> tuple[float, float]:
    """The values, of a ``sample`` of a deep picture's, that become 0 and 255; equal if the sample holds one value.

    The sample is not empty and finite.
    """
    low, high = (float(value) for value in np.percentile(sample.astype(np.float64), _PERCENTILES))
    return (low, high) if high > low else (float(sample.min()), float(sample.max()))


def levels(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """uint8 of deep values: ``low`` and less is 0, ``high`` and more 255, NaN 0; middle gray if the two are equal."""
    if not high > low:
        return np.full(values.shape, _MIDDLE_GRAY, np.uint8)
    scaled = (np.nan_to_num(values.astype(np.float64)) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _opacity(band: npt.NDArray[Any]) -> npt.NDArray[np.float32] | None:
    """float32[H, W] in [0, 1] of a band tagged as transparency; None if its values are not those of one."""
    largest = band.max()
    if not largest > 0:
        return np.zeros(band.shape, np.float32)
    if np.count_nonzero((band == 0) | (band == largest)) < TRANSPARENT * band.size:
        return None
    return np.clip(band.astype(np.float32) / np.float32(largest), 0, 1)


def _chosen(colors: list[int], bands: tuple[int, int, int] | None, name: str) -> list[int]:
    """Indices of the bands to show: three, or one of gray."""
    if len(colors) > 3 and bands is not None:
        if max(bands) > len(colors):
            raise ImageError(
                f"the image has {len(colors)} bands; {','.join(map(str, bands))} (--bands, {BANDS}) asks for more"
            )
        return [colors[band - 1] for band in bands]
    kept = 3 if len(colors) >= 3 else 1
    if len(colors) > kept:
        how = f"; choose others with --bands or {BANDS}, such as {BANDS}=4,3,2" if kept == 3 else ""
        which = "first three are shown as red, green and blue" if kept == 3 else "first is shown as gray"
        _tell("bands", name, f"{len(colors)} bands: the {which}{how}")
    return colors[:kept]


def _valid(values: npt.NDArray[Any], alpha: npt.NDArray[np.float32] | None, how: Layout) -> npt.NDArray[np.bool_]:
    """bool[H, W]: the pixels of values [H, W, B] that have a value at all."""
    valid = np.isfinite(values).all(axis=2)
    if how.nodata is not None and not np.isnan(how.nodata):
        valid &= (values != how.nodata).any(axis=2)
    if alpha is not None:
        valid &= alpha > 0
    return np.asarray(valid)


def _stretch(
    values: npt.NDArray[Any], alpha: npt.NDArray[np.float32] | None, how: Layout, name: str
) -> tuple[float, float] | tuple[()]:
    """What becomes 0 and what 255 of values [H, W, B]: ``_PERCENTILES`` of the valid ones; () if there are none."""
    step = max(1, int(np.ceil(np.sqrt(values.shape[0] * values.shape[1] / _SAMPLED))))

    def found(rows: slice, across: int) -> npt.NDArray[Any]:
        part, opacity = values[rows, ::across], None if alpha is None else alpha[rows, ::across]
        return part[_valid(part, opacity, how)]

    sample = found(slice(None, None, step), step)
    if not sample.size:
        sample = np.concatenate([found(slice(top, top + _ROWS), 1) for top in range(0, len(values), _ROWS)])
    if not sample.size:
        _tell("deep", name, "no pixel has a value: all of the picture is white")
        return ()
    low, high = black_and_white(sample)
    kind = f"{values.dtype.name} values, {float(sample.min()):g} to {float(sample.max()):g}"
    if not high > low:
        _tell("deep", name, f"{kind}: all are equal, the picture is middle gray")
    else:
        _tell("deep", name, f"{kind}: stretched to 8 bits, {low:g} and less is black, {high:g} and more is white")
    return low, high


def turned(rgb: RGB, orientation: int) -> RGB:
    """``rgb`` upright, by EXIF's ``orientation`` (1 to 8); contiguous and writable."""
    if orientation in (5, 6, 7, 8):
        rgb = rgb.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    return np.ascontiguousarray(rgb)


def _tell(kind: str, name: str, text: str) -> None:
    """Warn once of a file, and of the first ``_TOLD`` of a folder; the others are logged as information."""
    group, key = f"{kind} {name.rpartition('/')[0]}", f"{kind} {name}"
    if name and key in _told:
        return
    if len(_told) > _REMEMBERED:
        _told.clear()
    _told.update([key, group] if name else [])
    count = _told[group] if name else 0
    more = " (further files of this folder are logged as INFO)" if count == _TOLD else ""
    level = logging.INFO if count > _TOLD else logging.WARNING
    _log.log(level, "%s%s%s", f"{name}: " if name else "", text, more)
