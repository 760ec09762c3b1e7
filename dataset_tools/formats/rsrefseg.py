"""RSRefSeg: one JSON line per sentence, in RRSIS-D's dialect (one RLE in a list, bbox [x1, y1, x2, y2]).

datainfo/rrsisd_<split>.jsonl          {split, image_id, sent, file_name, category_id, category_name, ann_id,
                                        bbox, segmentation, area}
images/rrsisd/JPEGImages/<file>
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset_tools.categories import canonical
from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.formats.items import (
    Contents,
    Item,
    Items,
    flat_name,
    read_lines,
    references,
    split_of,
    write_lines,
)
from dataset_tools.masks import rle_of
from dataset_tools.records import Provenance, Record, Sample, SourceImage, Target

IMAGES = "images/rrsisd/JPEGImages/"


class RSRefSegWriter:
    """Writes RSRefSeg's JSON lines."""

    def image_path(self, _number: int, file_name: str, _split: str) -> str:
        """``images/rrsisd/JPEGImages/<file>``."""
        return IMAGES + flat_name(file_name)

    def files(self, _item: Item) -> Iterator[tuple[str, bytes]]:
        """Nothing: masks are in the index."""
        yield from ()

    def finish(self, root: Path, items: Items, contents: Contents) -> None:
        """``datainfo/rrsisd_<split>.jsonl``."""
        ids = contents.category_ids
        for split in contents.splits:
            lines = (json.dumps(entry) for item in items() for entry in _entries(item, split, ids))
            write_lines(root / "datainfo" / f"rrsisd_{split}.jsonl", lines)


def _entries(item: Item, split: str, ids: dict[str, int]) -> Iterator[dict[str, Any]]:
    sample = item.sample
    for reference in references(item):
        record = reference.record
        if split_of(record) != split:
            continue
        code = {"size": [sample.image.height, sample.image.width], "counts": sample.merged(record)}
        for text in reference.sentences:
            yield {
                "split": split, "image_id": item.number, "sent": text, "category_id": ids[record.category],
                "file_name": item.image_path.removeprefix(IMAGES), "category_name": record.category,
                "ann_id": reference.id, "bbox": [int(value) for value in sample.box(record)],
                "segmentation": [code], "area": sample.area(record),
            }  # fmt: skip


def read(root: Path) -> Iterator[Sample]:
    """Samples of a folder with ``datainfo/*.jsonl``; sizes are those of the masks.

    Raises:
        DatasetError: no such file, or a line is malformed.
    """
    files = sorted((root / "datainfo").glob("*.jsonl"))
    if not files:
        raise DatasetError(f"{root} has no datainfo/*.jsonl")
    by_image: dict[str, tuple[SourceImage, list[Record]]] = {}
    for file in files:
        for line, entry in read_lines(file):
            try:
                (code,) = entry["segmentation"] if isinstance(entry["segmentation"], list) else [entry["segmentation"]]
                height, width = code["size"]
                counts = rle_of(code, height, width)["counts"]
                category, name = str(entry["category_name"]), str(entry["file_name"])
                record = Record(
                    str(entry["sent"]), canonical(category) or category, (Target(counts, int(entry["ann_id"])),),
                    str(entry["split"]), None, Provenance(source="rsrefseg"),
                )  # fmt: skip
            except (KeyError, TypeError, ValueError, OverflowError, MaskError) as error:
                raise DatasetError(f"{file}, line {line}: {type(error).__name__} {error}") from error
            image = SourceImage(name, int(width), int(height), str(root / IMAGES / name))
            by_image.setdefault(name, (image, []))[1].append(record)
    for image, records in by_image.values():
        yield Sample(image, tuple(records))
