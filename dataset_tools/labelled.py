"""An image with its labelled objects and the expressions about them: what is measured on and learnt from.

:func:`read` makes them of a dataset folder in any format of ``dataset_tools.formats``; the annotation store makes them
of a project's accepted masks. Pixels and masks stay in their files and codes until somebody asks for them, so that a
whole dataset fits into memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dataset_tools import formats, image_files
from dataset_tools.categories import category_name
from dataset_tools.errors import DatasetError, ImageError, MaskError
from dataset_tools.geometry import Box
from dataset_tools.masks import Mask, Segmentation, box_of, from_coco, to_coco_rle
from dataset_tools.records import BoxOnly, Record, Sample, local_path

__all__ = [
    "LabelledExpression",
    "LabelledImage",
    "LabelledObject",
    "Question",
    "about_whole_objects",
    "questions",
    "read",
    "read_held_out",
    "spread",
    "whole_objects",
]

Item = TypeVar("Item")


@dataclass(frozen=True)
class LabelledObject:
    """One object that somebody outlined, accepted or boxed.

    Attributes:
        label: its category as the source spells it.
        box: (x0, y0, x1, y1) in pixels, as the source gives it, else the mask's tightest box.
        size: (height, width) of the image in pixels.
        segmentation: COCO polygons or run-length code of that size; None where the source has only a box.
        id: of the object in its source, unique there; None if it has none.
        truncated: the border of the image cuts it, as far as the source says so.
    """

    label: str
    box: Box
    size: tuple[int, int]
    segmentation: Segmentation | None = field(repr=False, default=None)
    id: str | None = None
    truncated: bool = False

    @classmethod
    def of(cls, label: str, mask: Mask, identity: str | None = None) -> LabelledObject:
        """An object with the pixels of ``mask`` bool[H, W], not empty."""
        height, width = mask.shape
        return cls(label, Box.of_mask(mask), (height, width), to_coco_rle(mask), identity)

    @property
    def category(self) -> str:
        """:func:`category_name` of the label."""
        return category_name(self.label)

    def mask(self) -> Mask:
        """The object's pixels as bool[height, width], decoded anew on every call.

        Raises:
            MaskError: the segmentation is damaged or of another size than the image.
            DatasetError: there is only a box.
        """
        if self.segmentation is None:
            raise DatasetError(f"the object {self.id or ''} ({self.label}) has a box and no mask")
        try:
            return from_coco(self.segmentation, *self.size)
        except MaskError as error:
            raise MaskError(f"the object {self.id or ''} ({self.label}): {error}") from error

    @property
    def rle(self) -> Mapping[str, Any]:
        """COCO's compressed run-length code, ``{"size": [height, width], "counts": str}``; raises like :meth:`mask`."""
        code = self.segmentation
        if isinstance(code, Mapping) and isinstance(code.get("counts"), str):
            return code
        return to_coco_rle(self.mask())


@dataclass(frozen=True)
class LabelledExpression:
    """A referring expression and what it names.

    Attributes:
        text: the words.
        objects: indices into the image's ``objects``; none: it names nothing that is there.
        kind: kind of expression (``single``, ``extreme``...), None if the source does not say.
        label: the category asked for as the source spells it, None if it does not say.
        number: place among the expressions of the source, which need not go image by image.
        style: how it was written (``terse``, ``natural``), empty if the source does not say.
    """

    text: str
    objects: tuple[int, ...]
    kind: str | None = None
    label: str | None = None
    number: int = 0
    style: str = ""


@dataclass(frozen=True)
class LabelledImage:
    """An image with what is known about it.

    Attributes:
        path: the file.
        height, width: in pixels, upright.
        objects: everything labelled in it.
        expressions: what was asked about it.
        complete: categories of which every object of the image is labelled; only of these may be learnt that there is
            none elsewhere in it.
        name: its name in the dataset, unique there; empty if it has none.
        sha256: of the file, 64 hex digits, where that is known already.
    """

    path: Path
    height: int
    width: int
    objects: tuple[LabelledObject, ...] = ()
    expressions: tuple[LabelledExpression, ...] = ()
    complete: frozenset[str] = frozenset()
    name: str = ""
    sha256: str | None = None

    @property
    def key(self) -> str:
        """sha256 of the file, 64 hex digits; read once, when it is first asked for. Raises ImageError."""
        return self.sha256 or image_files.file_key(self.path)

    def pixels(self) -> npt.NDArray[np.uint8]:
        """uint8[height, width, 3] RGB, read anew on every call.

        Raises:
            ImageError: the file is missing, no image, or of another size than the labels.
        """
        pixels = image_files.read(self.path)
        if pixels.shape[:2] != (self.height, self.width):
            raise ImageError(
                f"{self.path} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its labels were made for "
                f"{self.width} x {self.height}"
            )
        return pixels


@dataclass(frozen=True)
class Question:
    """An expression with the image that it is asked of."""

    image: LabelledImage
    expression: LabelledExpression

    @property
    def targets(self) -> tuple[LabelledObject, ...]:
        """The objects that the expression names."""
        return tuple(self.image.objects[index] for index in self.expression.objects)

    def target(self) -> Mask:
        """The union bool[H, W] of the targets' masks; all False without a target. Raises like theirs."""
        union = np.zeros((self.image.height, self.image.width), bool)
        for target in self.targets:
            union |= target.mask()
        return union

    @property
    def kind(self) -> str:
        """The expression's kind; ``expression`` (``absent`` without a target) where the source names none."""
        return self.expression.kind or ("expression" if self.expression.objects else "absent")

    @property
    def label(self) -> str:
        """The category asked for as the source spells it; empty if nothing says it."""
        return self.expression.label or next((target.label for target in self.targets), "")


def questions(images: Iterable[LabelledImage]) -> list[Question]:
    """Every expression of ``images`` in the order of their source."""
    found = [Question(image, expression) for image in images for expression in image.expressions]
    return sorted(found, key=lambda question: question.expression.number)


def about_whole_objects(asked: Iterable[Question], *, whole: bool = False, min_side: float = 0.0) -> list[Question]:
    """The questions that name only such objects; those that name none stay.

    Args:
        asked: in any order.
        whole: leave out those about objects that the image's border cuts (``LabelledObject.truncated``).
        min_side: leave out those about objects whose box is narrower or lower than this, in pixels.
    """
    return [
        question
        for question in asked
        if all(_is_whole(target, whole=whole, min_side=min_side) for target in question.targets)
    ]


def whole_objects(
    images: Iterable[LabelledImage], *, whole: bool = False, min_side: float = 0.0
) -> list[tuple[LabelledImage, LabelledObject]]:
    """The objects that ``about_whole_objects`` lets questions be about, each with its image, in their order."""
    return [
        (image, item) for image in images for item in image.objects if _is_whole(item, whole=whole, min_side=min_side)
    ]


def _is_whole(item: LabelledObject, *, whole: bool, min_side: float) -> bool:
    return not (whole and item.truncated) and min(item.box.width, item.box.height) >= min_side


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """``limit`` of the items at even distances, so that every part of a dataset stays in; without a limit all."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def read(
    folder: Path, split: str | Path | None = None, *, expressions: Path | None = None, masks: bool = True
) -> list[LabelledImage]:
    """The images of a dataset folder, in its order.

    Every object is there once, however many expressions name it. ``complete`` is known of ``coco_jsonl`` folders only:
    there every category of ``annotations.json`` counts as labelled; sets of referring expressions outline what they
    name and nothing else.

    Args:
        folder: of any format of ``dataset_tools.formats``, recognised by its files.
        split: the name of a split of the dataset, or a file that lists image file names (a JSON list, or one per line;
            DIOR-RSVG: object numbers); None takes everything.
        expressions: a file of expressions about the objects of a ``coco_jsonl`` folder, asked instead of its own.
        masks: the objects' masks are needed; False takes formats with boxes alone too.

    Raises:
        DatasetError: of no known format, malformed, without that split, without masks where they are needed, or an
            image is not a local file.
    """
    name = formats.detect(folder)
    if masks and not formats.FORMATS[name].masks:
        raise DatasetError(
            f"{folder} is of the format {name}, which holds boxes and no masks: they are needed here; give a dataset "
            "with masks (pslg train lqvg learns from boxes alone)"
        )
    if expressions is not None and name != "coco_jsonl":
        raise DatasetError(
            f"a file of expressions ({expressions}) goes with a coco_jsonl folder, whose annotations it names; "
            f"{folder} is of the format {name}"
        )
    if name == "coco_jsonl":
        return _read_coco_jsonl(folder, split, expressions)
    if name == "dior_rsvg":
        return _read_dior_rsvg(folder, split)
    samples = list(formats.read(folder, name))
    boxes = sum(len(sample.boxes) for sample in samples)
    if masks and boxes:
        raise DatasetError(
            f"{folder}: {boxes} objects have a box and no mask, and masks are needed here; pslg dataset export "
            "--boxes-as-masks makes a copy where every box is a mask"
        )
    return list(_labelled(samples, _Part(folder, samples, split)))


def read_held_out(folder: Path) -> list[LabelledImage]:
    """The images of a dataset folder that were not learnt from: its ``test`` split, or all of it without one.

    Raises:
        DatasetError: see :func:`read`.
    """
    images = read(folder)  # also says what is wrong with the folder
    with suppress(DatasetError):
        return read(folder, "test") or images
    return images


def _read_coco_jsonl(folder: Path, split: str | Path | None, expressions: Path | None) -> list[LabelledImage]:
    from dataset_tools.formats import coco_jsonl

    data = coco_jsonl.read(folder, split, expressions)
    complete = frozenset(map(category_name, data.categories))
    asked: dict[str, list[tuple[int, coco_jsonl.Expression]]] = {}
    for number, row in enumerate(data.expressions):
        asked.setdefault(row.image, []).append((number, row))
    images = []
    for entry in data.images:
        size = (entry.height, entry.width)
        index = {annotation.id: place for place, annotation in enumerate(entry.annotations)}
        objects = tuple(
            LabelledObject(a.category, a.box, size, a.segmentation, str(a.id), a.truncated) for a in entry.annotations
        )
        found = tuple(
            LabelledExpression(
                e.expression,
                tuple(index[i] for i in e.ann_ids),
                e.kind,
                e.category,
                number,
                str(e.extra.get("style", "")),
            )
            for number, e in asked.get(entry.file_name, ())
        )
        images.append(LabelledImage(entry.path, *size, objects, found, complete, entry.file_name))
    return images


def _read_dior_rsvg(folder: Path, split: str | Path | None) -> list[LabelledImage]:
    from dataset_tools.formats import dior_rsvg

    by_image: dict[Path, list[tuple[int, dior_rsvg.DescribedObject]]] = {}
    for number, row in enumerate(dior_rsvg.read(folder, split)):
        by_image.setdefault(row.image, []).append((number, row))
    images = []
    for path, rows in by_image.items():
        size = (rows[0][1].height, rows[0][1].width)
        objects = tuple(LabelledObject(row.category, row.box, size, None, str(row.number)) for _, row in rows)
        found = tuple(
            LabelledExpression(row.expression, (place,), None, row.category, number)
            for place, (number, row) in enumerate(rows)
        )
        images.append(LabelledImage(path, *size, objects, found, name=path.name))
    return images


class _Part:
    """Which records of a dataset's samples belong to the split asked for."""

    def __init__(self, folder: Path, samples: Sequence[Sample], split: str | Path | None) -> None:
        from dataset_tools.formats.coco_jsonl import listed_images

        self._split = split
        self._names: frozenset[str] | None = None
        splits = {split for sample in samples for split in sample.splits if split is not None}
        if split is None or split in splits:
            return
        if not Path(split).is_file():
            has = f"it has {', '.join(sorted(splits))}" if splits else "its expressions name no split"
            raise DatasetError(f"{folder} has no split {str(split)!r}; {has}, and no file of that name lists images")
        self._names = frozenset(listed_images(Path(split)))
        unknown = sorted(self._names - {sample.image.file_name for sample in samples})
        if unknown:
            raise DatasetError(f"{split} lists {len(unknown)} images that {folder} does not hold, e.g. {unknown[0]!r}")

    def records(self, sample: Sample) -> tuple[Record, ...]:
        """Those of the sample that belong to it."""
        if self._split is None:
            return sample.records
        if self._names is not None:
            return sample.records if sample.image.file_name in self._names else ()
        return tuple(record for record in sample.records if record.split == self._split)

    def boxes(self, sample: Sample) -> tuple[BoxOnly, ...]:
        """Those of the sample's objects without a mask that belong to it."""
        if self._split is None or (self._names is not None and sample.image.file_name in self._names):
            return sample.boxes
        return tuple(box for box in sample.boxes if self._names is None and box.split == self._split)


def _labelled(samples: Iterable[Sample], part: _Part) -> Iterator[LabelledImage]:
    """Images with the objects and expressions of the part's records; images without any are left out."""
    number = 0
    for sample in samples:
        records = part.records(sample)
        if not records and not part.boxes(sample):
            continue
        size = (sample.image.height, sample.image.width)
        places: dict[str, int] = {}
        objects = [LabelledObject(b.category, b.box, size, None, None) for b in part.boxes(sample) if not b.crowd]
        expressions = []
        for record in records:
            if not record.expression and all(target.crowd for target in record.targets):
                continue  # a crowd is many objects under one outline: no object to learn or to measure
            for target in record.targets:
                if target.counts not in places:
                    places[target.counts] = len(objects)
                    code = {"size": list(size), "counts": target.counts}
                    identity = f"{sample.image.file_name}:{len(objects) if target.id is None else target.id}"
                    objects.append(LabelledObject(record.category, box_of(code, *size), size, code, identity))
            if record.expression:
                named = tuple(places[target.counts] for target in record.targets)
                expressions.append(LabelledExpression(record.expression, named, record.kind, record.category, number))
                number += 1
        image = sample.image
        yield LabelledImage(local_path(image), *size, tuple(objects), tuple(expressions), frozenset(), image.file_name)
