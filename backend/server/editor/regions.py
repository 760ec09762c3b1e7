"""Masks -> the regions of an answer; their shapes are ``dataset_tools.label_studio.regions``'s."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from backend.pipeline.types import Mask
from backend.server.editor.labeling_config import Control
from backend.server.protocol import Region
from dataset_tools.label_studio.regions import new_id, provenance, written

__all__ = ["RegionWriter"]

logger = logging.getLogger(__name__)


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
        ids = [region_id or new_id(), *(new_id() for _ in values)][: len(values)]
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
        values = written(mask, control.type, self.polygon_tolerance)
        if control.tag == "BrushLabels":
            size = len(orjson.dumps(values[0]["rle"]))
            self.report_bytes(size)
            if size > self.rle_warning_bytes:
                logger.warning(
                    "a brush region takes %d bytes of JSON; such regions are slow in the editor: raise"
                    " PSLG_SPECK_AREA and PSLG_HOLE_AREA, or use PolygonLabels",
                    size,
                )
        return values
