"""``coco_jsonl`` as a stream of samples, and written from one; :mod:`.coco_jsonl` describes the folder.

It is the one format that holds everything a record has: objects apart, objects without words, expressions without an
object, kinds, provenance. Expression lines carry ``split`` and ``provenance`` beside the usual keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset_tools import atomic
from dataset_tools.categories import canonical
from dataset_tools.errors import DatasetError
from dataset_tools.formats import coco_jsonl
from dataset_tools.formats.coco import objects
from dataset_tools.formats.items import Contents, Item, Items, category_rows, flat_name, write_json, write_lines
from dataset_tools.masks import area_of, box_of, to_coco_rle
from dataset_tools.records import Provenance, Record, Sample, SourceImage, Target


class CocoJsonlWriter:
    """Writes ``coco_jsonl``."""

    def image_path(self, _number: int, file_name: str, _split: str) -> str:
        """``images/<file>``."""
        return f"images/{flat_name(file_name)}"

    def files(self, _item: Item) -> Iterator[tuple[str, bytes]]:
        """Nothing: masks are in the index."""
        yield from ()

    def finish(self, root: Path, items: Items, contents: Contents) -> None:
        """``annotations.json``, ``expressions.jsonl`` and, if splits were decided, ``split.json``."""
        ids = contents.category_ids
        lists = {"images": _images(items), "annotations": _annotations(items, ids), "categories": category_rows(ids)}
        write_json(root / "annotations.json", {"info": {"description": "coco_jsonl"}}, lists)
        write_lines(root / "expressions.jsonl", (json.dumps(line) for line in _expressions(items)))
        if any(split for item in items() for split in item.sample.splits):
            names: dict[str, list[str]] = {split: [] for split in contents.splits}
            for item in items():
                for split in sorted(split for split in item.sample.splits if split):
                    names[split].append(item.image_path.removeprefix("images/"))
            atomic.write_text(root / "split.json", json.dumps(names, indent=1))


def _numbered_objects(items: Items) -> Iterator[tuple[Item, dict[tuple[str, str], int]]]:
    """Every item with the annotation ids of its objects, by (category, counts)."""
    last = 0
    for item in items():
        numbers = {}
        for category, target, _ in objects(item):
            last += 1
            numbers[category, target.counts] = last
        yield item, numbers


def _number(numbers: dict[tuple[str, str], int], item: Item, category: str, target: Target) -> int:
    """The annotation id of a target; one outlined anew under another expression has the id of its object."""
    if (category, target.counts) in numbers:
        return numbers[category, target.counts]
    same = (
        other.counts
        for record in item.sample.records
        if record.category == category
        for other in record.targets
        if other.id == target.id and (category, other.counts) in numbers
    )
    return numbers[category, next(same)]


def _images(items: Items) -> Iterator[dict[str, Any]]:
    for item in items():
        image = item.sample.image
        yield {
            "id": item.number, "file_name": item.image_path.removeprefix("images/"), "width": image.width,
            "height": image.height, **({"scene": image.scene} if image.scene else {}), **image.extra,
        }  # fmt: skip


def _annotations(items: Items, ids: dict[str, int]) -> Iterator[dict[str, Any]]:
    for item, numbers in _numbered_objects(items):
        height, width = item.sample.image.height, item.sample.image.width
        crowds = {(category, target.counts) for category, target, _ in objects(item) if target.crowd}
        for (category, counts), number in numbers.items():
            code = {"size": [height, width], "counts": counts}
            x0, y0, x1, y1 = box_of(code, height, width)
            yield {
                "id": number, "image_id": item.number, "category_id": ids[category], "segmentation": code,
                "area": area_of(code, height, width), "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": int((category, counts) in crowds),
            }  # fmt: skip


def _expressions(items: Items) -> Iterator[dict[str, Any]]:
    for item, numbers in _numbered_objects(items):
        for offset, record in enumerate(item.sample.records):
            if not record.expression:
                continue
            usual = {0: "absent", 1: "other"}.get(len(record.targets), "all")
            yield {
                "id": item.first + offset, "image": item.image_path.removeprefix("images/"),
                "category": record.category, "expression": record.expression, "kind": record.kind or usual,
                "ann_ids": list(dict.fromkeys(_number(numbers, item, record.category, t) for t in record.targets)),
                "bbox": list(item.sample.box(record)) if record.targets else None, "split": record.split,
                "provenance": {key: value for key, value in asdict(record.provenance).items() if value is not None},
            }  # fmt: skip


def read(root: Path) -> Iterator[Sample]:
    """Samples of a ``coco_jsonl`` folder; objects that no expression names come as records without words.

    Raises:
        DatasetError: see :func:`.coco_jsonl.read`; or a damaged mask.
    """
    data = coco_jsonl.read(root)
    splits = {name: split for split, names in data.split.items() for name in names}
    by_image: dict[str, list[coco_jsonl.Expression]] = {}
    for expression in data.expressions:
        by_image.setdefault(expression.image, []).append(expression)
    for entry in data.images:
        split = splits.get(entry.file_name)
        targets = {a.id: Target(str(to_coco_rle(a.mask())["counts"]), a.id, a.crowd) for a in entry.annotations}
        named: set[int] = set()
        records = []
        for expression in by_image.get(entry.file_name, []):
            named.update(expression.ann_ids)
            try:
                record = Record(
                    expression=expression.expression,
                    category=canonical(expression.category) or expression.category,
                    targets=tuple(targets[ann_id] for ann_id in expression.ann_ids),
                    split=expression.extra.get("split") or split,
                    kind=None if expression.kind == "other" else expression.kind,
                    provenance=_provenance(expression),
                    id=expression.id,
                )
            except TypeError as error:
                raise DatasetError(f"{root}, expression {expression.id}: {error}") from error
            records.append(record)
        for annotation in entry.annotations:
            if annotation.id not in named:
                category = canonical(annotation.category) or annotation.category
                source = Provenance(source="coco_jsonl")
                records.append(Record("", category, (targets[annotation.id],), split, provenance=source))
        image = SourceImage(entry.file_name, entry.width, entry.height, str(entry.path), entry.scene, entry.extra)
        yield Sample(image, tuple(records), split=split)


def _provenance(expression: coco_jsonl.Expression) -> Provenance:
    try:
        return Provenance(**expression.extra.get("provenance", {"source": "coco_jsonl"}))
    except TypeError as error:
        raise DatasetError(f"expression {expression.id}: unusable provenance: {error}") from error
