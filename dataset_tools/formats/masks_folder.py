"""Plain files: images, one 1-bit PNG mask per expression, and one JSON line that ties them together.

images/<file>     masks/<id>.png     annotations.jsonl: {id, image, mask, expression, category, split, kind, ...}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from dataset_tools.errors import DatasetError
from dataset_tools.formats.items import Contents, Item, Items, flat_name, read_lines, to_png, write_lines
from dataset_tools.records import Provenance, Record, Sample, SourceImage, target_of

_TEXTS = ("split", "kind", "scene")


class MasksFolderWriter:
    """Writes plain masks."""

    def image_path(self, _number: int, file_name: str, _split: str) -> str:
        """``images/<file>``."""
        return f"images/{flat_name(file_name)}"

    def files(self, item: Item) -> Iterator[tuple[str, bytes]]:
        """``masks/<id>.png``."""
        for number, record in item.numbered():
            yield f"masks/{number}.png", to_png(item.sample.union(record))

    def finish(self, root: Path, items: Items, _contents: Contents) -> None:
        """``annotations.jsonl``."""
        lines = (json.dumps(entry) for item in items() for entry in _entries(item))
        write_lines(root / "annotations.jsonl", lines)


def _entries(item: Item) -> Iterator[dict[str, Any]]:
    for number, record in item.numbered():
        yield {
            "id": number, "image": item.image_path, "mask": f"masks/{number}.png", "expression": record.expression,
            "category": record.category, "split": record.split, "kind": record.kind, "scene": item.sample.image.scene,
            "provenance": {key: value for key, value in asdict(record.provenance).items() if value is not None},
        }  # fmt: skip


def read(root: Path) -> Iterator[Sample]:
    """Samples of such a folder, one per image.

    Raises:
        DatasetError: the index is missing or malformed, a mask is missing or unreadable.
    """
    file = root / "annotations.jsonl"
    by_image: dict[str, list[tuple[int, Record]]] = {}
    rows: dict[str, SourceImage] = {}
    for line, entry in read_lines(file):
        try:
            mask = cv2.imread(str(root / entry["mask"]), cv2.IMREAD_GRAYSCALE)
            if mask is None:
                raise DatasetError(f"{file}, line {line}: {root / entry['mask']} is missing or unreadable")
            path = str(entry["image"])
            if not all(entry.get(key) is None or isinstance(entry[key], str) for key in _TEXTS):
                raise ValueError(f"split, kind and scene are texts, got {[entry.get(key) for key in _TEXTS]!r:.80}")
            record = Record(
                str(entry["expression"]), str(entry["category"]), (target_of(mask > 0),) if mask.any() else (),
                entry.get("split"), entry.get("kind"), Provenance(**entry.get("provenance", {})), int(entry["id"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(f"{file}, line {line}: {type(error).__name__} {error}") from error
        height, width = mask.shape
        name = path.removeprefix("images/")
        rows[path] = SourceImage(name, width, height, str(root / path), entry.get("scene"))
        by_image.setdefault(path, []).append((line, record))
    for path, image in rows.items():
        yield Sample(image, tuple(record for _, record in by_image[path]))
