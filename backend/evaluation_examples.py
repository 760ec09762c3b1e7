"""What an evaluation asks: the expressions of a dataset with the objects they name.

Any format of ``dataset_tools.formats`` is read: ``coco_jsonl`` folders as data/nwpu_vhr10, REFER roots as RRSIS-D,
RefSegRS and the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pycocotools import mask as coco

from backend.pipeline.types import Box, Mask
from dataset_tools import formats
from dataset_tools.errors import DatasetError
from dataset_tools.formats import coco_jsonl
from dataset_tools.masks import from_coco
from dataset_tools.records import Record, Sample

__all__ = ["Example", "Target", "of_whole_objects", "read_examples", "spread"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Target:
    """One object that an expression names.

    Attributes:
        id: unique within the dataset.
        category: as the dataset spells it.
        box: in pixels.
        mask: makes bool[H, W]; called when it is needed.
        truncated: the border of the image cuts it, as far as the dataset says so.
    """

    id: str
    category: str
    box: Box
    mask: Callable[[], Mask]
    truncated: bool = False


@dataclass(frozen=True)
class Example:
    """One expression: its image file, the words, their kind, the category asked for, and the objects they name."""

    image: Path
    expression: str
    kind: str
    category: str
    targets: tuple[Target, ...]


def read_examples(data: Path, split: str | None = None, expressions: Path | None = None) -> list[Example]:
    """The expressions of a dataset.

    Args:
        data: the dataset's folder.
        split: a split of the dataset, or (``coco_jsonl``) a file that lists images; None takes everything.
        expressions: (``coco_jsonl``) a file of expressions to read instead of the folder's own.

    Raises:
        DatasetError: of no known format, malformed, or without expressions.
    """
    plain = formats.detect(data) == "coco_jsonl"
    if expressions is not None and not plain:
        raise DatasetError(f"{data} is no coco_jsonl folder: its expressions cannot be taken from {expressions}")
    examples = list(_coco_jsonl(data, split, expressions) if plain else _samples(data, split))
    if not examples:
        raise DatasetError(f"{data} has no expressions" + (f" in the split {split!r}" if split else ""))
    return examples


def of_whole_objects(examples: Sequence[Example], *, whole: bool = False, min_side: float = 0.0) -> list[Example]:
    """The examples that name only such objects; those that name none stay.

    Args:
        examples: in any order.
        whole: leave out objects that the image's border cuts (``Target.truncated``).
        min_side: leave out objects whose box is narrower or lower than this, in pixels.
    """
    return [
        example
        for example in examples
        if all(
            not (whole and target.truncated) and min(target.box.width, target.box.height) >= min_side
            for target in example.targets
        )
    ]


def spread(examples: Sequence[Item], limit: int | None) -> list[Item]:
    """``limit`` of the examples (or of anything else) at even distances, so that every part of the dataset stays in.

    Without a limit all of them.
    """
    if limit is None or limit >= len(examples):
        return list(examples)
    return [examples[index * len(examples) // limit] for index in range(limit)]


def _coco_jsonl(data: Path, split: str | None, expressions: Path | None) -> Iterator[Example]:
    """With the boxes and categories that the folder gives each annotation."""
    dataset = coco_jsonl.read(data, Path(split) if split is not None and Path(split).is_file() else split, expressions)
    for row in dataset.expressions:
        objects = [dataset.annotation(ann_id) for ann_id in row.ann_ids]
        targets = tuple(Target(str(one.id), one.category, one.box, one.mask, one.truncated) for one in objects)
        yield Example(dataset.image(row.image).path, row.expression, row.kind, row.category, targets)


def _samples(data: Path, split: str | None) -> Iterator[Example]:
    splits = set()
    for sample in formats.read(data):
        for number, record in enumerate(sample.records):
            splits.add(record.split)
            if split is None or record.split == split:
                yield _example(sample, record, number)
    if split is not None and split not in splits:
        raise DatasetError(f"{data} has no split {split!r}; it has {', '.join(sorted(map(str, splits)))}")


def _example(sample: Sample, record: Record, number: int) -> Example:
    image = sample.image
    if image.location is None or "://" in image.location:
        raise DatasetError(
            f"the image {image.file_name} is not a local file ({image.location}): fetch the images first"
        )
    targets = []
    for index, target in enumerate(record.targets):
        code = {"size": [image.height, image.width], "counts": target.counts}
        x, y, width, height = (float(value) for value in coco.toBbox(code))
        identity = f"{image.file_name}:{number}:{index}" if target.id is None else f"{image.file_name}:{target.id}"
        mask = partial(from_coco, code, image.height, image.width)
        targets.append(Target(identity, record.category, Box(x, y, x + width, y + height), mask))
    kind = record.kind or "expression"
    return Example(Path(image.location), record.expression, kind, record.category, tuple(targets))
