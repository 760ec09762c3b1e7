"""Masks -> Label Studio regions.

Label Studio counts x, y, width and height in percent of the original image; a brush region is a run-length code of the
whole image's RGBA bytes (``dataset_tools.brush_rle``). A region's ``id`` is its identity: the editor replaces a region
by another of the same id.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from backend.pipeline.types import Mask
from backend.server.editor.labeling_config import Control
from backend.server.protocol import Region
from dataset_tools import brush_rle, masks
from dataset_tools.geometry import Box

__all__ = ["RegionWriter", "provenance"]

logger = logging.getLogger(__name__)


def provenance(model_version: str, clicks: int, score: float) -> str:
    """Where a region comes from; kept by Label Studio through accept, submit and export."""
    return f"pslg model={model_version} clicks={clicks} score={score:.3f}"


@dataclass(frozen=True)
class RegionWriter:
    """Turns cleaned masks into regions of one labeling config.

    Attributes:
        image: name of the Image tag (``to_name``).
        model_version: for the provenance in ``meta.text``.
        polygon_tolerance: largest distance in pixels between contour and polygon.
        rle_warning_bytes: JSON size of a brush code above which a warning is logged.
        report_bytes: called with the JSON size of every brush code.
    """

    image: str
    model_version: str
    polygon_tolerance: float = 1.0
    rle_warning_bytes: int = 1_000_000
    report_bytes: Callable[[int], None] = lambda _: None

    def regions(
        self,
        mask: Mask,
        label: str,
        controls: Sequence[Control],
        *,
        score: float,
        clicks: int = 0,
        region_id: str | None = None,
    ) -> list[Region]:
        """The regions of one object, one per control (a polygon control: one per part of the mask).

        Args:
            mask: bool[H, W] at the image's natural size; an empty one gives no regions.
            label: the stored text of a label that each of ``controls`` has.
            controls: where to put the object.
            score: in [0, 1].
            clicks: how many clicks led to the mask.
            region_id: id of the region that the first one replaces; the others get fresh ids.
        """
        if not mask.any():
            return []
        values = [(control, value) for control in controls for value in self._values(mask, control)]
        ids = [region_id or _fresh_id(), *(_fresh_id() for _ in values)][: len(values)]
        height, width = mask.shape
        return [
            {
                "id": identity,
                "from_name": control.name,
                "to_name": self.image,
                "type": control.type,
                "origin": "prediction",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": score,
                "value": {**value, control.type: [label]},
                "meta": {"text": [provenance(self.model_version, clicks, score)]},
            }
            for identity, (control, value) in zip(ids, values, strict=True)
        ]

    def _values(self, mask: Mask, control: Control) -> list[Region]:
        height, width = mask.shape
        if control.tag == "BrushLabels":
            rle = brush_rle.encode(mask)
            size = len(orjson.dumps(rle))
            self.report_bytes(size)
            if size > self.rle_warning_bytes:
                logger.warning(
                    "a brush region takes %d bytes of JSON; such regions are slow in the editor: raise"
                    " PSLG_SPECK_AREA and PSLG_HOLE_AREA, or use PolygonLabels",
                    size,
                )
            return [{"format": "rle", "rle": rle}]
        if control.tag == "RectangleLabels":
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
        # Corners of to_polygons lie on pixel centres, half a pixel from the pixel's own corner.
        return [
            {
                "points": [
                    [100 * (x + 0.5) / width, 100 * (y + 0.5) / height]
                    for x, y in zip(polygon[::2], polygon[1::2], strict=True)
                ],
                "closed": True,
            }
            for polygon in masks.to_polygons(mask, self.polygon_tolerance)
        ]


def _fresh_id() -> str:
    return secrets.token_hex(5)
