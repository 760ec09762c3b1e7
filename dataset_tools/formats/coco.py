"""Strict COCO: one instance per object, true area, bbox [x, y, width, height], segmentation as an RLE dict.

    annotations/instances_<split>.json     images/<file>

pycocotools and supervision read it as it is. Expressions have no place in it; objects that several expressions name
are written once. Reading takes polygons, plain and compressed RLE; every object becomes a record without words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.formats.items import SPLITS, Item, Items, category_ids, display_name, flat_name, split_of, write_json
from dataset_tools.masks import area_of, box_of, from_coco, to_coco_rle
from dataset_tools.records import Provenance, Record, Sample, SourceImage, Target


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


def splits_of(items: Items) -> list[str]:
    """The splits that occur, the known ones first; an image without records is in ``train``."""
    found = {split for item in items() for split in _splits(item)}
    return [*(s for s in SPLITS if s in found), *sorted(found - set(SPLITS))]


def _splits(item: Item) -> set[str]:
    return {split_of(record) for record in item.sample.records} or {SPLITS[0]}


def write_instances(path: Path, items: Items, split: str, ids: Mapping[str, int], strip: str = "") -> None:
    """One instances file.

    Args:
        path: the file.
        items: the export's samples.
        split: the split whose objects it takes; an image comes with it if it has a record of the split,
            or none at all (``train``).
        ids: category ids.
        strip: folder of the image paths that ``file_name`` leaves out.
    """

    def members() -> Iterator[Item]:
        return (item for item in items() if split in _splits(item))

    def images() -> Iterator[dict[str, Any]]:
        for item in members():
            image = item.sample.image
            name = item.image_path.removeprefix(strip)
            yield {"id": item.number, "file_name": name, "width": image.width, "height": image.height}

    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for item in members():
            height, width = item.sample.image.height, item.sample.image.width
            for category, target, where in objects(item):
                if where != split:
                    continue
                number += 1
                code = {"size": [height, width], "counts": target.counts}
                x0, y0, x1, y1 = box_of(code, height, width)
                yield {
                    "id": number, "image_id": item.number, "category_id": ids[category], "segmentation": code,
                    "area": area_of(code, height, width), "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0,
                }  # fmt: skip

    categories = [{"id": number, "name": name, "supercategory": display_name(name)} for name, number in ids.items()]
    write_json(
        path, {"info": {}, "licenses": []}, {"images": images(), "annotations": annotations(), "categories": categories}
    )


class CocoWriter:
    """Writes strict COCO."""

    def image_path(self, _number: int, file_name: str) -> str:
        """``images/<file>``."""
        return f"images/{flat_name(file_name)}"

    def files(self, _item: Item) -> Iterator[tuple[str, bytes]]:
        """Nothing: masks are in the index."""
        yield from ()

    def finish(self, root: Path, items: Items) -> None:
        """``annotations/instances_<split>.json`` for every split that occurs."""
        ids = category_ids(items)
        for split in splits_of(items):
            write_instances(root / "annotations" / f"instances_{split}.json", items, split, ids, "images/")


def read(root: Path) -> Iterator[Sample]:
    """Samples of ``annotations/*.json`` (or of one such file) with images in ``images/`` beside it.

    A file name ``instances_<split>.json`` (or ``<split>.json``) gives the split.

    Raises:
        DatasetError: no such file, or it is malformed; the message names file and entry.
    """
    files = [root] if root.is_file() else sorted((root / "annotations").glob("*.json"))
    if not files:
        raise DatasetError(f"{root} has no annotations/*.json")
    images = (files[0].parent.parent if files[0].parent.name == "annotations" else files[0].parent) / "images"
    for file in files:
        split = file.stem.removeprefix("instances_")
        yield from _read_file(file, images, split if split in SPLITS else None)


def _read_file(file: Path, folder: Path, split: str | None) -> Iterator[Sample]:
    try:
        content = json.loads(file.read_bytes())
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        by_image: dict[Any, list[dict[str, Any]]] = {entry["id"]: [] for entry in content["images"]}
        for entry in content["annotations"]:
            by_image[entry["image_id"]].append(entry)
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{file} is not COCO: {type(error).__name__} {error}") from error
    for image in content["images"]:
        height, width = int(image["height"]), int(image["width"])
        records = []
        for entry in by_image[image["id"]]:
            try:
                code = to_coco_rle(from_coco(entry["segmentation"], height, width))
                category = names[entry["category_id"]]
            except (MaskError, KeyError) as error:
                raise DatasetError(f"{file}: annotation {entry.get('id')}: {error}") from error
            target = Target(code["counts"], int(entry["id"]))
            records.append(Record("", category, (target,), split, None, Provenance(source="coco")))
        name = str(image["file_name"])
        yield Sample(SourceImage(name, width, height, str(folder / name)), tuple(records))
