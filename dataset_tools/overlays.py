"""Pictures of results for people: masks, boxes and points on their image, with captions, and sheets of many.

Numpy in, numpy out: images are uint8[H, W, 3], RGB; masks bool[H, W]; coordinates pixels of the image. Lines and text
are drawn after scaling, so that they stay readable on any image size.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dataset_tools.geometry import Box, Point

__all__ = ["OverlayObject", "contact_sheet", "draw_overlay", "panel"]

RGB = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

# Bright and far apart in hue, for objects on vegetation, asphalt and water alike.
PALETTE: tuple[Color, ...] = (
    (255, 64, 160),
    (0, 220, 255),
    (255, 210, 0),
    (140, 255, 90),
    (255, 130, 40),
    (190, 130, 255),
)
_TRUTH: Color = (255, 255, 255)
_PAPER: Color = (250, 250, 250)
_INK: Color = (25, 25, 25)
_MUTED: Color = (110, 110, 110)


@dataclass(frozen=True, eq=False)
class OverlayObject:
    """One object to draw; every part may be missing.

    Attributes:
        mask: bool[H, W] at the image's size; filled lightly, its contour drawn.
        box: drawn thin.
        point: the foreground point, drawn as a dot with a ring.
        label: short text at the box or the mask, for instance ``airplane 0.87``.
    """

    mask: npt.NDArray[np.bool_] | None = None
    box: Box | None = None
    point: Point | None = None
    label: str = ""


def draw_overlay(
    image: RGB,
    objects: Sequence[OverlayObject],
    *,
    truth: npt.NDArray[np.bool_] | None = None,
    scale: float = 1.0,
) -> RGB:
    """``image`` scaled by ``scale`` with ``objects`` on it, each in its colour; ``truth`` as a white contour."""
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    factors = (size[0] / width, size[1] / height)
    line = max(1, round(max(size) / 500))
    for index, item in enumerate(objects):
        color = PALETTE[index % len(PALETTE)]
        if item.mask is not None:
            canvas = _draw_mask(canvas, item.mask, color, line)
        if item.box is not None:
            x0, y0, x1, y1 = (round(v * f) for v, f in zip(item.box, factors * 2, strict=True))
            cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), color, line, cv2.LINE_AA)
    if truth is not None:
        cv2.drawContours(canvas, _contours(truth, size), -1, _TRUTH, line, cv2.LINE_AA)
    for index, item in enumerate(objects):  # points and labels last: nothing covers them
        if item.point is not None:
            at = (round(item.point.x * factors[0]), round(item.point.y * factors[1]))
            cv2.circle(canvas, at, 3 * line + 1, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(canvas, at, 2 * line + 1, PALETTE[index % len(PALETTE)], -1, cv2.LINE_AA)
    return _draw_labels(canvas, objects, factors)


def panel(
    image: RGB,
    objects: Sequence[OverlayObject],
    title: str,
    detail: str = "",
    *,
    truth: npt.NDArray[np.bool_] | None = None,
    size: int = 420,
    height: int | None = None,
) -> RGB:
    """One picture of a contact sheet: the overlay in a square of ``size`` px, title (expression) and detail below.

    Args:
        image: uint8[H, W, 3].
        objects: what to draw on it.
        title: wrapped to three lines at most.
        detail: one smaller line, for instance scores.
        truth: bool[H, W], drawn as a white contour.
        size: width of the panel in px; all panels of one size have the same height.
        height: of the overlay's part in px, for sheets whose images are all wider than high; None makes it square.
    """
    picture = size if height is None else height
    scale = min(size / image.shape[1], picture / image.shape[0])
    drawn = draw_overlay(image, objects, truth=truth, scale=scale)
    title_size, detail_size = max(12, size // 26), max(11, size // 30)
    line_height = round(title_size * 1.3)
    text_height = 3 * line_height + round(detail_size * 1.3) + 14
    page = Image.new("RGB", (size, picture + text_height), _PAPER)
    page.paste(Image.fromarray(drawn), ((size - drawn.shape[1]) // 2, (picture - drawn.shape[0]) // 2))
    draw = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(title_size), ImageFont.load_default(detail_size)
    y = picture + 4
    for text in _wrap(title, size - 12, font, 3):
        draw.text((6, y), text, fill=_INK, font=font)
        y += line_height
    for text in _wrap(detail, size - 12, small, 1):
        draw.text((6, picture + 4 + 3 * line_height), text, fill=_MUTED, font=small)
    return np.asarray(page, np.uint8)


def contact_sheet(panels: Sequence[RGB], columns: int = 4, gap: int = 8) -> RGB:
    """Panels of equal size side by side, ``columns`` to a row, ``gap`` px between them.

    Raises:
        ValueError: no panels, or panels of different sizes.
    """
    if not panels:
        raise ValueError("a contact sheet needs at least one panel")
    shapes = {one.shape for one in panels}
    if len(shapes) > 1:
        raise ValueError(f"panels of one sheet must have one size, got {sorted(shapes)}")
    height, width = panels[0].shape[:2]
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    sheet = np.full((gap + rows * (height + gap), gap + columns * (width + gap), 3), 215, np.uint8)
    for index, one in enumerate(panels):
        y = gap + index // columns * (height + gap)
        x = gap + index % columns * (width + gap)
        sheet[y : y + height, x : x + width] = one
    return sheet


def _contours(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> Sequence[npt.NDArray[np.int32]]:
    scaled = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(scaled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(contour, np.int32) for contour in contours]


def _draw_mask(canvas: RGB, mask: npt.NDArray[np.bool_], color: Color, line: int) -> RGB:
    size = (canvas.shape[1], canvas.shape[0])
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    tinted = canvas.copy()
    tinted[inside] = (0.65 * canvas[inside] + 0.35 * np.array(color)).astype(np.uint8)
    cv2.drawContours(tinted, _contours(mask, size), -1, color, line, cv2.LINE_AA)
    return tinted


def _draw_labels(canvas: RGB, objects: Sequence[OverlayObject], factors: tuple[float, float]) -> RGB:
    if not any(item.label for item in objects):
        return canvas
    page = Image.fromarray(canvas)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(max(11, max(canvas.shape[:2]) // 38))
    for index, item in enumerate(objects):
        box = item.box if item.box is not None or item.mask is None else Box.of_mask(item.mask)
        if not item.label or box is None:
            continue
        left, _, right, bottom = draw.textbbox((0, 0), item.label, font=font)
        width, height = int(right - left) + 6, int(bottom) + 4
        x = min(max(0, round(box.x0 * factors[0])), max(0, page.width - width))
        above = round(box.y0 * factors[1]) - height
        y = above if above >= 0 else min(round(box.y1 * factors[1]), page.height - height)
        draw.rectangle((x, y, x + width, y + height), fill=PALETTE[index % len(PALETTE)])
        draw.text((x + 3, y + 1), item.label, fill=(0, 0, 0), font=font)
    return np.asarray(page, np.uint8)


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, lines: int) -> list[str]:
    """``text`` broken to ``width`` px; what does not fit into ``lines`` lines ends in an ellipsis."""
    per_line = max(8, int(width / max(1.0, font.getlength("e"))))
    return textwrap.wrap(text, per_line, max_lines=lines, placeholder=" ...")
