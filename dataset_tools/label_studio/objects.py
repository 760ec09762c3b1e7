"""The objects of an annotation: what several controls outline together is one object. For export, report and training.

A labeling config may have brush, polygon and rectangle labels side by side, and the server answers in each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dataset_tools import metrics
from dataset_tools.label_studio.regions import Region, is_accepted, read_region

__all__ = ["BOX", "SAME_OBJECT", "objects_of", "one_object_each"]

BOX = "rectanglelabels"
"""Kind of the regions that are boxes."""
SAME_OBJECT = 0.6
"""IoU from which two outlines with one label are the same object."""
_INSIDE = 0.9  # share of an outline that the box of its object holds
_ORDER = ("brushlabels", "polygonlabels", "ellipselabels", BOX)


def objects_of(annotation: Mapping[str, Any]) -> list[Region]:
    """The accepted regions of an annotation of ``results.annotations_of``, each object once, none of them empty.

    Raises:
        DatasetError: a region has no size, was drawn on a rotated view, or its coordinates are unusable.
        MaskError: a mask is damaged.
    """
    regions = [read_region(result, annotation) for result in annotation["result"] if is_accepted(result)]
    return one_object_each([region for region in regions if region.mask.any()])


def one_object_each(regions: Sequence[Region]) -> list[Region]:
    """The regions with those left out that outline an object another region outlines better, in their order.

    Of one label on one image: a rectangle that holds at least 90 % of an outline is that object's box; outlines are
    one object from an IoU of 0.6, and so are a brush region and the polygons of its parts; brush goes before polygon,
    ellipse and rectangle, the later before the earlier. Two regions with different words of their own both stay.
    """
    kept: list[tuple[int, Region]] = []
    for number, region in sorted(enumerate(regions), key=lambda pair: (_ORDER.index(pair[1].kind), -pair[0])):
        same = next((k for k, (_, known) in enumerate(kept) if _is_same(known, region)), None)
        if same is None:
            kept.append((number, region))
        elif kept[same][1].expression is None and region.expression is not None:
            kept[same] = (kept[same][0], replace(kept[same][1], expression=region.expression))
    for brush in [region for _, region in kept if region.kind == "brushlabels"]:
        parts = [number for number, region in kept if _is_part(brush, region)]
        if parts and metrics.iou(np.logical_or.reduce([regions[n].mask for n in parts]), brush.mask) >= SAME_OBJECT:
            kept = [(number, region) for number, region in kept if number not in parts]
    return [region for _, region in sorted(kept, key=lambda pair: pair[0])]


def _comparable(known: Region, region: Region) -> bool:
    words = {known.expression, region.expression} - {None}
    place = (known.image, known.item, known.label, known.mask.shape)
    return place == (region.image, region.item, region.label, region.mask.shape) and len(words) < 2


def _is_same(known: Region, region: Region) -> bool:
    """Whether ``region`` outlines the object of ``known``, which goes before it."""
    if not _comparable(known, region):
        return False
    if region.kind == BOX != known.kind:
        return _share(known, region) >= _INSIDE
    return metrics.iou(known.mask, region.mask) >= SAME_OBJECT


def _is_part(brush: Region, region: Region) -> bool:
    return region.kind == "polygonlabels" and _comparable(brush, region) and _share(region, brush) >= _INSIDE


def _share(inner: Region, outer: Region) -> float:
    """How much of ``inner`` lies in ``outer``."""
    return float(np.logical_and(inner.mask, outer.mask).sum() / inner.mask.sum())
