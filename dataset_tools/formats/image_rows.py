"""One row per image with its refs, packed with the image: what the WebDataset and the Hugging Face format share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from dataset_tools.formats.items import Item, references, split_of
from dataset_tools.records import Provenance, Record, Sample, SourceImage, Target

STAGED = "staged/"
"""Folder of the images until they are packed."""


class PackedWriter:
    """The beginning of a writer whose images go into larger files at the end, their masks in the rows."""

    def image_path(self, number: int, file_name: str, _split: str) -> str:
        """A staging place; ``finish`` packs the image."""
        return f"{STAGED}{number:08d}{PurePosixPath(file_name).suffix}"

    def files(self, _item: Item) -> Iterator[tuple[str, bytes]]:
        """Nothing: masks are in the rows."""
        yield from ()


def refs_of(item: Item, split: str) -> list[dict[str, Any]]:
    """The refs of an image that belong to ``split``: sentences with a kind and a provenance each, bbox [x, y, width,
    height], mask as RLE."""
    rows = []
    image = item.sample.image
    for reference in references(item):
        record = reference.record
        if split_of(record) == split:
            x0, y0, x1, y1 = item.sample.box(record)
            row = {
                "id": reference.id, "sentences": list(reference.sentences), "category": record.category,
                "kinds": [one.kind for one in reference.records], "bbox": [x0, y0, x1 - x0, y1 - y0],
                "mask": {"size": [image.height, image.width], "counts": item.sample.merged(record)},
                "provenances": [
                    {key: value for key, value in asdict(one.provenance).items() if value is not None}
                    for one in reference.records
                ],
            }  # fmt: skip
            rows.append(row)
    return rows


def read_row(row: Mapping[str, Any], split: str, location: str, source: str) -> Sample:
    """The sample of a row; raises KeyError, TypeError or ValueError where the row lacks something."""
    image = SourceImage(row["file_name"], row["width"], row["height"], location, row.get("scene"))
    records = tuple(
        Record(
            sentence,
            ref["category"],
            (Target(ref["mask"]["counts"], ref["id"]),),
            split,
            kind,
            Provenance(**{"source": source, **provenance}),
        )
        for ref in row["refs"]
        for sentence, kind, provenance in zip(ref["sentences"], ref["kinds"], ref["provenances"], strict=True)
    )
    return Sample(image, records)
