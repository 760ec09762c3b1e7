"""Strict COCO: one instance per object, true area, bbox [x, y, width, height], segmentation as an RLE dict.

    annotations/instances_<split>.json     images/<file>

pycocotools and supervision read it as it is. Expressions have no place in it; objects that several expressions name
are written once. Objects of which only a box is known have no ``segmentation``; crowds are ``iscrowd`` 1. Category ids
start at 1, as in COCO itself: some loaders take 0 for the background. :mod:`.coco_rows` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset_tools.formats.coco_rows import read
from dataset_tools.formats.items import Contents, Item, Items, category_rows, flat_name, split_of, write_json
from dataset_tools.formats.outlines import Loss
from dataset_tools.masks import area_of, box_of, from_coco, to_polygons
from dataset_tools.records import Target

__all__ = ["CocoWriter", "objects", "read", "write_instances"]


def objects(item: Item) -> Iterator[tuple[str, Target, str]]:
    """(category, target, split) of every object of an image, once each: what has one mask, or one id, is one object.

    Of targets with one id the last is taken.
    """
    last = {(record.category, target.id): target for record in item.sample.records for target in record.targets}
    seen: set[tuple[str, str | int | None]] = set()
    for record in item.sample.records:
        for target in record.targets:
            keys = {(record.category, target.counts), (record.category, target.id)} - {(record.category, None)}
            if not keys & seen:
                newest = target if target.id is None else last[record.category, target.id]
                yield record.category, newest, split_of(record)
            seen |= keys


def write_instances(
    path: Path, items: Items, split: str, ids: Mapping[str, int], strip: str = "", polygons: Loss | None = None
) -> None:
    """One instances file.

    Args:
        path: the file.
        items: the export's samples.
        split: the split whose objects it takes; an image comes with it if it has a record of the split, or is of the
            split and has none.
        ids: category ids from 0, written from 1.
        strip: folder of the image paths that ``file_name`` leaves out.
        polygons: write polygons, not run-length codes (crowds excepted), and count here what they lose; an annotation
            that lost something says so (``mask_iou``).
    """

    images: list[dict[str, Any]] = []

    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for item in items():
            if split not in {name or "train" for name in item.sample.splits}:
                continue
            image = item.sample.image
            height, width = image.height, image.width
            name = item.image_path.removeprefix(strip)
            images.append(
                {"id": item.number, "file_name": name, "width": width, "height": height, **item.sample.image.place}
            )
            for category, target, where in objects(item):
                if where != split:
                    continue
                number += 1
                code = {"size": [height, width], "counts": target.counts}
                x0, y0, x1, y1 = box_of(code, height, width)
                shape: Any = code
                lost: dict[str, float] = {}
                if polygons is not None and not target.crowd:
                    mask = from_coco(code, height, width)
                    shape = to_polygons(mask)
                    overlap = polygons.add(mask, shape, image.file_name)
                    if overlap < 1:
                        lost = {"mask_iou": round(overlap, 4)}
                yield {
                    "id": number, "image_id": item.number, "category_id": ids[category] + 1, "segmentation": shape,
                    "area": area_of(shape, height, width), "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "iscrowd": int(target.crowd), **lost,
                }  # fmt: skip
            for entry in item.sample.boxes:
                if (entry.split or "train") != split:
                    continue
                number += 1
                x0, y0, x1, y1 = entry.box
                yield {
                    "id": number, "image_id": item.number, "category_id": ids[entry.category] + 1,
                    "area": entry.box.area, "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(entry.crowd),
                }  # fmt: skip

    # The images are known when the annotations are through: the export is read once, not twice.
    write_json(
        path,
        {"info": {}, "licenses": []},
        {"annotations": annotations(), "images": images, "categories": category_rows(ids, 1)},
    )


class CocoWriter:
    """Writes strict COCO: masks as exact run-length codes, or as ``polygons``, which fill holes."""

    def __init__(self, polygons: bool = False) -> None:
        self._loss = Loss() if polygons else None

    def image_path(self, _number: int, file_name: str, _split: str) -> str:
        """``images/<file>``."""
        return f"images/{flat_name(file_name)}"

    def files(self, _item: Item) -> Iterator[tuple[str, bytes]]:
        """Nothing: masks are in the index."""
        yield from ()

    def finish(self, root: Path, items: Items, contents: Contents) -> str | None:
        """``annotations/instances_<split>.json`` for every split that occurs."""
        for split in contents.splits:
            file = root / "annotations" / f"instances_{split}.json"
            write_instances(file, items, split, contents.category_ids, "images/", self._loss)
        return None if self._loss is None else str(self._loss)
