"""What the writers share: numbered samples, referring expressions grouped by object, category ids, streamed JSON."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeAlias

import numpy as np

from dataset_tools import atomic
from dataset_tools.categories import CATEGORIES
from dataset_tools.errors import DatasetError
from dataset_tools.masks import Mask
from dataset_tools.records import Record, Sample

SPLITS = ("train", "val", "test")
"""Names of the splits that the field's loaders know."""


@dataclass(frozen=True)
class Item:
    """A sample with its ids in an export.

    Attributes:
        number: id of the image, from 1.
        first: id of the first record; the others follow. Ids of samples that failed are not given again.
        sample: image and records.
        image_path: where the exporter put the image, relative to the dataset's root.
    """

    number: int
    first: int
    sample: Sample
    image_path: str

    def numbered(self) -> Iterator[tuple[int, Record]]:
        """(id, record) of every record that has an expression and a target."""
        for offset, record in enumerate(self.sample.records):
            if record.expression and record.targets:
                yield self.first + offset, record


Items: TypeAlias = Callable[[], Iterator[Item]]
"""Starts over at every call: index files are written in several passes, with one item in memory."""


class Writer(Protocol):
    """One output format. ``files`` may run in another process; ``finish`` runs once, at the end."""

    def image_path(self, number: int, file_name: str, split: str, /) -> str:
        """Where an image of a split goes, relative to the root; its suffix says how it is encoded."""
        ...

    def files(self, item: Item, /) -> Iterator[tuple[str, bytes]]:
        """Files of one sample besides its image: (path relative to the root, content)."""
        ...

    def finish(self, root: Path, items: Items, contents: Contents, /) -> str | None:
        """Write the index files of the whole dataset, of which ``contents`` are known; returns what the format lost of
        it, in words for the card.
        """
        ...


@dataclass(frozen=True)
class Reference:
    """Sentences about the same targets of one image: what REFER calls a ref. Ids are those of its records.

    ``record`` is the first of its ``records``: all mean the same targets.
    """

    id: int
    sentence_ids: tuple[int, ...]
    sentences: tuple[str, ...]
    record: Record
    records: tuple[Record, ...]


def references(item: Item, grouped: bool = True) -> list[Reference]:
    """The records of an image grouped by targets, category and split; not ``grouped``: one reference per record."""
    groups: dict[tuple[object, ...], list[tuple[int, Record]]] = {}
    for number, record in item.numbered():
        key = (tuple(t.counts for t in record.targets), record.category, record.split) if grouped else (number,)
        groups.setdefault(key, []).append((number, record))
    return [
        Reference(
            id=group[0][0],
            sentence_ids=tuple(number for number, _ in group),
            sentences=tuple(record.expression for _, record in group),
            record=group[0][1],
            records=tuple(record for _, record in group),
        )
        for group in groups.values()
    ]


class Contents:
    """Which categories and splits occur in an export, gathered sample by sample."""

    def __init__(self) -> None:
        self._categories: set[str] = set()
        self._splits: set[str] = set()

    def add(self, sample: Sample) -> None:
        """Take note of a sample."""
        self._splits.update(split or "train" for split in sample.splits)
        self._categories.update(record.category for record in sample.records)
        self._categories.update(box.category for box in sample.boxes)

    @property
    def category_ids(self) -> dict[str, int]:
        """The canonical categories' places, so RRSIS-D's ids 0..19; others that occur follow in alphabetical order."""
        names = [*CATEGORIES, *sorted(self._categories - set(CATEGORIES))]
        return {name: number for number, name in enumerate(names)}

    @property
    def splits(self) -> list[str]:
        """Those that occur, the known ones first; an image that names none is in ``train``."""
        return [*(split for split in SPLITS if split in self._splits), *sorted(self._splits - set(SPLITS))]


def display_name(category: str) -> str:
    """How a sentence names the category; the name itself where it is not canonical."""
    return CATEGORIES[category].display if category in CATEGORIES else category


def category_rows(ids: Mapping[str, int], first: int = 0) -> list[dict[str, Any]]:
    """COCO's ``categories``: numbers from ``first``."""
    return [{"id": number + first, "name": name, "supercategory": display_name(name)} for name, number in ids.items()]


def flat_name(file_name: str, suffix: str | None = None) -> str:
    """``file_name`` without folders and with another suffix, for formats whose images lie in one folder."""
    path = PurePosixPath(file_name)
    flat = "__".join(part for part in path.parts if part not in ("/", ".."))
    return flat if suffix is None else str(PurePosixPath(flat).with_suffix(suffix))


def to_png(mask: Mask) -> bytes:
    """A mask bool[H, W] as a 1-bit PNG, read as 0 and 255 (Pillow: ``convert("L")``).

    Written out here because OpenCV and Pillow take three and four times as long for a mask.
    """
    height, width = mask.shape
    rows = np.zeros((height, 1 + -(-width // 8)), np.uint8)  # the first byte of a row names its filter: none
    rows[:, 1:] = np.packbits(mask, axis=1)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (b"IHDR" + header, b"IDAT" + zlib.compress(rows.tobytes(), 1), b"IEND")
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write_json(path: Path, head: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> None:
    """A JSON object whose lists are written element by element, so that they never lie in memory."""
    with atomic.open_bytes(path) as file:
        file.write(b"{" + json.dumps(dict(head)).encode()[1:-1])
        separator = b", " if head else b""
        for key, values in lists.items():
            file.write(separator + json.dumps(key).encode() + b": [")
            separator = b", "
            for number, value in enumerate(values):
                file.write((b",\n" if number else b"\n") + json.dumps(value).encode())
            file.write(b"\n]")
        file.write(b"}\n")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A text file of one entry per line."""
    with atomic.open_bytes(path) as file:
        for line in lines:
            file.write(line.encode() + b"\n")


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, JSON object) of a JSON-lines file.

    Raises:
        DatasetError: the file is missing or a line is no JSON object.
    """
    if not path.is_file():
        raise DatasetError(f"{path} does not exist")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DatasetError(f"{path}, line {number}: not valid JSON ({error}): {line[:80]!r}") from error
            if not isinstance(value, dict):
                raise DatasetError(f"{path}, line {number}: a JSON object was expected, got {line[:80]!r}")
            yield number, value


def image_split(sample: Sample) -> str:
    """The one split of an image, for formats that deal whole images: of several the one that is held out furthest, so
    that nothing that is tested is learnt.
    """
    found = {split or "train" for split in sample.splits}
    return next((split for split in reversed(SPLITS) if split in found), min(found))


def split_of(record: Record) -> str:
    """The record's split; ``train`` where none was decided."""
    return record.split or "train"
