"""The regions of a task: the one under a click, found in what the request carries, and those that an answer holds.

Of a region in a request each brush code is read only up to the clicked pixel (``brush_rle.value_at``), as runs where
the click lies on no region; only the chosen region becomes a mask. All is kept by the code's content hash, because
every further click of an annotator asks the same again. Shapes: ``dataset_tools.label_studio.shapes``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import cv2
import numpy as np
import orjson

from backend.bounded_cache import BoundedCache
from backend.pipeline.segmentation.refinement import NEAR, distance_in_sizes, mostly
from backend.pipeline.types import Mask, Point
from backend.server.editor.labeling_config import Control, LabelingConfig
from backend.server.editor.prompts import newest_draft
from backend.server.protocol import Region, Task
from backend.settings import Settings
from dataset_tools import brush_rle
from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.label_studio.notes import answered
from dataset_tools.label_studio.regions import new_id, provenance, read_info, words
from dataset_tools.label_studio.shapes import brush_code, mask_of, written

__all__ = ["FoundRegion", "RegionLookup", "RegionWriter", "visible_results"]

logger = logging.getLogger(__name__)

_FRAGMENT = 0.02
"""A part of less than this share of the largest part is no polygon: each would be a region of its own to delete."""
_LOOKUP_BYTES = 4_000_000
_MASK_BYTES = 32_000_000
Results: TypeAlias = Sequence[Sequence[Any]]
"""Lists of a task's regions; a click means one of the first list that has one for it."""
_DAMAGED = (DatasetError, MaskError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True, eq=False)
class FoundRegion:
    """A region that a click lies on.

    Attributes:
        id: to be returned, so that the refinement replaces it.
        control: the control it belongs to.
        digest: of its content, for caches.
        mask: bool[H, W].
        expression: the words it was found for, which its refinement answers too; None if it says none.
    """

    id: str
    control: Control
    digest: str
    mask: Mask
    expression: str | None = None


class RegionLookup:
    """Finds regions; a pure function of the request, with caches of what it computed. Thread-safe."""

    def __init__(self) -> None:
        self._hits: BoundedCache[tuple[str, int, int], bool] = BoundedCache(_LOOKUP_BYTES)
        self._distances: BoundedCache[tuple[str, int, int], float] = BoundedCache(_LOOKUP_BYTES)
        self._masks: BoundedCache[str, Mask] = BoundedCache(_MASK_BYTES)

    def under(
        self, seen: Results, point: Point, label: str, config: LabelingConfig, image_size: tuple[int, int]
    ) -> FoundRegion | None:
        """The topmost region with this label under ``point`` (x, y in pixels), None without one.

        ``seen``: what the annotator sees, :func:`visible_results`. Regions of smart tools are prompts and do not count.
        """
        return self.holding(seen, [point], label, config, image_size)

    def holding(
        self, seen: Results, points: Sequence[Point], label: str, config: LabelingConfig, image_size: tuple[int, int]
    ) -> FoundRegion | None:
        """The topmost region with this label that holds more than half of ``points``, None without one."""
        for result in seen:
            for region, control in _labelled(result, label, config):
                try:
                    if self._holds(region, control, points, image_size):
                        return self._found(region, control, image_size)
                except _DAMAGED:
                    continue  # a damaged region is not under any click
        return None

    def near(
        self, seen: Results, point: Point, label: str, config: LabelingConfig, image_size: tuple[int, int]
    ) -> FoundRegion | None:
        """The region with this label that a positive click at ``point`` beside it refines, the nearest of several."""
        for result in seen:
            least, nearest = NEAR, None
            for region, control in _labelled(result, label, config):
                try:
                    distance = self._distance(region, control, point, image_size)
                except _DAMAGED:
                    continue
                if distance < least:
                    least, nearest = distance, (region, control)
            if nearest is not None:
                return self._found(*nearest, image_size)
        return None

    def shown(
        self, seen: Results, config: LabelingConfig, image_size: tuple[int, int]
    ) -> list[tuple[str, FoundRegion]]:
        """Label and region of everything outlined in what the annotator sees, the topmost last; candidates and damaged
        regions are left out.
        """
        outputs = {control.name: control for control in config.outputs}
        for result in seen:
            found: list[tuple[str, FoundRegion]] = []
            for region in answered(result):
                value = region.get("value") if isinstance(region, dict) else None
                control = outputs.get(str(region.get("from_name"))) if isinstance(value, dict) else None
                if control is None or region.get("type") != control.type or not config.shows(region):
                    continue
                labels = value.get(control.type) if isinstance(value, dict) else None
                try:
                    mask = mask_of(control.type, region["value"], *image_size)
                except (DatasetError, MaskError, TypeError, ValueError):
                    continue
                if isinstance(labels, list) and labels and isinstance(labels[0], str) and mask.any():
                    found.append((labels[0], FoundRegion(str(region.get("id")), control, "", mask)))
            if found:
                return found
        return []

    def _holds(
        self, region: dict[str, Any], control: Control, points: Sequence[Point], image_size: tuple[int, int]
    ) -> bool:
        if control.tag != "BrushLabels":
            mask = mask_of(control.type, region["value"], *image_size)
            return mostly(mask[int(point.y), int(point.x)] for point in points)
        height, width = image_size
        code = brush_code(region["value"])
        digest = _digest(code, image_size)

        def value_at(point: Point) -> bool:
            key = (digest, int(point.x), int(point.y))
            value = self._hits.get(key)
            if value is None:
                value = brush_rle.value_at(code, x=key[1], y=key[2], height=height, width=width)
                self._hits.put(key, value, 200)
            return value

        return mostly(map(value_at, points))

    def _distance(self, region: dict[str, Any], control: Control, point: Point, image_size: tuple[int, int]) -> float:
        """``distance_in_sizes`` from a region to a point."""
        if control.tag != "BrushLabels":
            runs = brush_rle.mask_runs(mask_of(control.type, region["value"], *image_size))
            return distance_in_sizes(*runs, image_size[1], point)
        code = brush_code(region["value"])
        key = (_digest(code, image_size), int(point.x), int(point.y))
        distance = self._distances.get(key)
        if distance is None:
            distance = distance_in_sizes(*brush_rle.pixel_runs(code, *image_size), image_size[1], point)
            self._distances.put(key, distance, 200)
        return distance

    def _found(self, region: dict[str, Any], control: Control, image_size: tuple[int, int]) -> FoundRegion:
        said = read_info(region, {}).expression
        if control.tag != "BrushLabels":
            mask = mask_of(control.type, region["value"], *image_size)
            digest = hashlib.blake2b(np.packbits(mask).tobytes()).hexdigest()
            return FoundRegion(str(region["id"]), control, digest, mask, said)
        code = brush_code(region["value"])
        digest = _digest(code, image_size)
        known = self._masks.get(digest)
        if known is None:
            known = brush_rle.decode(code, *image_size)
            self._masks.put(digest, known, known.nbytes)
        return FoundRegion(str(region["id"]), control, digest, known, said)


def _digest(code: list[int], image_size: tuple[int, int]) -> str:
    return hashlib.blake2b(bytes(code) + repr(image_size).encode()).hexdigest()


def _labelled(result: Sequence[Any], label: str, config: LabelingConfig) -> Iterator[tuple[dict[str, Any], Control]]:
    """The regions of the image with a label, the topmost first, and the controls that they were made with."""
    outputs = {control.name: control for control in config.outputs}
    for region in reversed(result):
        if not isinstance(region, dict) or not isinstance(region.get("value"), dict):
            continue
        control = outputs.get(str(region.get("from_name")))
        if control is None or region.get("type") != control.type or not region.get("id") or not config.shows(region):
            continue
        labels = region["value"].get(control.type)
        if isinstance(labels, list) and label in labels:
            yield region, control


def visible_results(task: Task) -> Results:
    """What the annotator sees: the newest draft; without a draft the annotations, the newest first, then predictions.

    Where several people have annotated the task only predictions, never another annotator's region. Empty results are
    left out.
    """
    draft = newest_draft(task.drafts)
    if draft is not None:
        return [draft["result"]] if draft["result"] else []
    seen: list[Sequence[Any]] = []
    for group in (task.annotations, task.predictions):
        usable = [item for item in group if isinstance(item, dict) and isinstance(item.get("result"), list)]
        people = {str(item.get("completed_by")) for item in usable if not item.get("was_cancelled")}
        if group is task.annotations and len(people) > 1:
            continue  # the request does not say whose click it is: what all of them began from is what is seen for sure
        newest_first = sorted(usable, key=lambda item: str(item.get("updated_at") or ""), reverse=True)
        seen += [item["result"] for item in newest_first if item["result"] and not item.get("was_cancelled")]
    return seen


@dataclass(frozen=True)
class RegionWriter:
    """Turns cleaned masks into regions of one labeling config.

    Attributes:
        image: name of the Image tag (``to_name``).
        model_version: for the provenance in ``meta.text``.
        polygon_tolerance: largest distance in pixels between contour and polygon.
        rle_warning_bytes: JSON size of a brush code above which a warning is logged.
        report_bytes: called with the JSON size of every brush code.
        item: number of the image where the tag shows several (``item_index``), else None.
        own: the config's labels that are no canonical category, which words may name.
        nouns: that the project's annotators use -> category.
    """

    image: str
    model_version: str
    polygon_tolerance: float = 1.0
    rle_warning_bytes: int = 1_000_000
    report_bytes: Callable[[int], None] = lambda _: None
    item: int | None = None
    own: Collection[str] = ()
    nouns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, config: LabelingConfig, model_version: str, settings: Settings, report_bytes: Callable[[int], None]
    ) -> RegionWriter:
        """The writer of a request's regions."""
        return cls(
            config.image,
            model_version,
            settings.polygon_tolerance,
            settings.rle_warning_bytes,
            report_bytes,
            config.item,
            config.own_categories,
            config.nouns,
        )

    def regions(
        self,
        mask: Mask,
        label: str,
        controls: Sequence[Control],
        *,
        score: float,
        expression: str | None = None,
        clicks: int = 0,
        region_id: str | None = None,
        mark: str | None = None,
    ) -> list[Region]:
        """The regions of one object, one per control (a polygon control: one per part of the mask).

        Args:
            mask: bool[H, W] at the image's natural size; an empty one gives no regions.
            label: the stored text of a label that each of ``controls`` has.
            controls: where to put the object.
            score: in [0, 1].
            expression: the words that the object was found for; None for one that was clicked or boxed only.
            clicks: how many clicks and drawn boxes led to the mask.
            region_id: id of the region that the first one replaces; the others get fresh ids.
            mark: a further line of ``meta.text``, for a candidate.
        """
        if not mask.any():
            return []
        values = [(control, value) for control in controls for value in self._values(mask, control)]
        ids = [region_id] if region_id and values else []
        while len(ids) < len(values):
            ids.append(new_id())
        height, width = mask.shape
        said = [provenance(self.model_version, clicks, score)]
        if expression and expression.strip():
            said += words(expression, self.own, self.nouns)
        if mark is not None:
            said.append(mark)
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
                "meta": {"text": list(said)},
                **({} if self.item is None else {"item_index": self.item}),
            }
            for identity, (control, value) in zip(ids, values, strict=True)
        ]

    def _values(self, mask: Mask, control: Control) -> list[Region]:
        if control.tag == "PolygonLabels":
            mask = _without_fragments(mask)
        values = written(mask, control.type, self.polygon_tolerance, rotated=control.rotated)
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


def _without_fragments(mask: Mask) -> Mask:
    """``mask`` bool[H, W], not empty, without parts that are tiny beside its largest one."""
    count, parts, figures, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = figures[:, cv2.CC_STAT_AREA]
    keep = areas >= _FRAGMENT * areas[1:].max()
    keep[0] = False
    return mask if keep[1:].all() or count == 2 else np.asarray(keep[parts], np.bool_)
