"""One image in many tasks is one image: samples joined by the content of their images, their objects together.

Every expression keeps the mask that was accepted under it. Targets that outline one object get one ``id``, by which
formats of objects (``formats.coco.objects``) write it once.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeAlias

from pycocotools import mask as coco_mask

from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.objects import SAME_OBJECT
from dataset_tools.records import Record, Sample, Target

__all__ = ["joined"]

_Key: TypeAlias = tuple[str, int, int]


def joined(samples: Iterable[Sample]) -> Iterator[Sample]:
    """``samples`` with those of one image as one, in the order of their first; memory stays flat.

    Images are one if they lie in the same place, or in files of the same bytes.

    Raises:
        DatasetError: what ``samples`` raises, after everything before it was yielded.
    """
    failed: DatasetError | None = None
    places: dict[_Key, list[int]] = {}
    with TemporaryFile() as file:
        try:
            for sample in samples:
                image = sample.image
                key = (image.location or image.file_name, image.width, image.height)
                places.setdefault(key, []).append(file.tell())
                file.write(pickle.dumps(sample))
        except DatasetError as error:
            failed = error
        for offsets in _by_content(places):
            parts: list[Sample] = []
            for offset in offsets:
                file.seek(offset)
                parts.append(pickle.load(file))  # noqa: S301 - our own file of a moment ago
            yield _one(parts)
    if failed is not None:
        raise failed


def _by_content(places: dict[_Key, list[int]]) -> Iterator[list[int]]:
    """Offsets of each image; only files of one size are read, and only to tell them apart."""
    sizes: dict[int, list[_Key]] = {}
    for key in places:
        size = _size(key[0])
        if size:
            sizes.setdefault(size, []).append(key)
    same: dict[tuple[bytes, int, int], list[int]] = {}
    merged: set[_Key] = set()
    for keys in sizes.values():
        for key in keys if len(keys) > 1 else ():
            try:
                content = hashlib.sha256(Path(key[0]).read_bytes()).digest()
            except OSError:
                continue  # the exporter says so
            known = same.get((content, *key[1:]))
            if known is None:
                same[content, key[1], key[2]] = places[key]
            else:
                known += places[key]
                merged.add(key)
    for key, offsets in places.items():
        if key not in merged:
            yield sorted(offsets)


def _size(location: str) -> int | None:
    try:
        return Path(location).stat().st_size
    except (OSError, ValueError):
        return None


def _one(parts: Sequence[Sample]) -> Sample:
    image = parts[0].image
    scene = next((part.image.scene for part in parts if part.image.scene), None)
    records: dict[tuple[str, str, tuple[Target, ...]], Record] = {}
    for record in (record for part in parts for record in part.records):
        records.setdefault((record.expression, record.category, record.targets), record)
    found = tuple(_identified(list(records.values()), image.height, image.width))
    return Sample(replace(image, scene=scene), found)


def _identified(records: Sequence[Record], height: int, width: int) -> Iterator[Record]:
    """The records, with one id for targets of one category that outline one object in different ways."""
    objects: dict[str, list[set[str]]] = {}
    for record in records:
        known = objects.setdefault(record.category, [])
        for counts in (target.counts for target in record.targets):
            overlaps = [max(_iou(counts, other, height, width) for other in masks) for masks in known]
            best = max(range(len(known)), key=overlaps.__getitem__, default=None)
            if best is not None and overlaps[best] >= SAME_OBJECT:
                known[best].add(counts)
            else:
                known.append({counts})
    ids = {
        (category, counts): number
        for category, known in objects.items()
        for number, masks in enumerate(known, start=1)
        for counts in masks
        if len(masks) > 1
    }
    for record in records:
        targets = tuple(replace(t, id=ids.get((record.category, t.counts), t.id)) for t in record.targets)
        yield replace(record, targets=targets)


def _iou(first: str, second: str, height: int, width: int) -> float:
    if first == second:
        return 1.0
    codes = [{"size": [height, width], "counts": counts.encode()} for counts in (first, second)]
    return float(coco_mask.iou(codes[:1], codes[1:], [0])[0][0])
