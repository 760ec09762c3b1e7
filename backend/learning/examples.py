"""What people labelled, as training and the promotion gate see it: images with objects and the expressions about them.

Pure data: the annotation store makes it from a project's accepted masks, :func:`read_coco_jsonl` from a research data
set, :func:`synthetic_examples` from drawn scenes. Pixels stay in their files until somebody reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from backend.evaluation_examples import Example, Target
from dataset_tools import categories
from dataset_tools.formats import coco_jsonl
from dataset_tools.geometry import Box
from dataset_tools.masks import Mask, from_coco, to_coco_rle

__all__ = [
    "LabelledExpression",
    "LabelledImage",
    "LabelledObject",
    "category_name",
    "file_key",
    "gate_examples",
    "read_coco_jsonl",
    "synthetic_examples",
]


@dataclass(frozen=True)
class LabelledObject:
    """One object that a person outlined or accepted.

    Attributes:
        category: :func:`category_name` of its label.
        rle: COCO's compressed run-length code, ``{"size": [height, width], "counts": str}``.
        box: the mask's tightest box in pixels.
    """

    category: str
    rle: Mapping[str, Any] = field(repr=False)
    box: Box

    @classmethod
    def of(cls, category: str, mask: Mask) -> LabelledObject:
        """An object of ``category`` with the pixels of ``mask`` bool[H, W], not empty."""
        return cls(category_name(category), to_coco_rle(mask), Box.of_mask(mask))

    def mask(self) -> Mask:
        """The object's pixels as bool[height, width]; raises MaskError if the code is damaged."""
        height, width = self.rle["size"]
        return from_coco(self.rle, height, width)


@dataclass(frozen=True)
class LabelledExpression:
    """An expression and the objects of its image that it names (indices into ``objects``); none: it names nothing."""

    text: str
    objects: tuple[int, ...]


@dataclass(frozen=True)
class LabelledImage:
    """An image with what is known about it.

    Attributes:
        key: sha256 of the file, 64 hex digits.
        path: the file.
        height, width: in pixels.
        objects: everything labelled in it.
        expressions: what was asked about it.
        complete: categories of which every object of the image is labelled; only of these may be learnt that there is
            none elsewhere in it.
    """

    key: str
    path: Path
    height: int
    width: int
    objects: tuple[LabelledObject, ...] = ()
    expressions: tuple[LabelledExpression, ...] = ()
    complete: frozenset[str] = frozenset()


def category_name(label: str) -> str:
    """The canonical name behind a label, or the label itself, lower case with single blanks ("Solar_Panel" ->
    "solar panel"), where it names no canonical category.
    """
    return categories.canonical(label) or " ".join(label.lower().replace("_", " ").replace("-", " ").split())


def file_key(path: Path) -> str:
    """The sha256 of the file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def gate_examples(images: Sequence[LabelledImage]) -> list[Example]:
    """The expressions of ``images`` as ``backend.evaluation`` asks them; ids of targets are unique among them."""
    examples = []
    for image in images:
        targets = [
            Target(f"{image.key}:{number}", item.category, item.box, item.mask)
            for number, item in enumerate(image.objects)
        ]
        for expression in image.expressions:
            named = tuple(targets[index] for index in expression.objects)
            kind = "absent" if not named else "single" if len(named) == 1 else "all"
            category = named[0].category if named else ""
            examples.append(Example(image.path, expression.text, kind, category, named))
    return examples


def read_coco_jsonl(folder: Path, split: str | None = None, *, partly: Collection[str] = ()) -> list[LabelledImage]:
    """The images of a ``coco_jsonl`` folder; every object of each of the folder's categories counts as labelled.

    Args:
        folder: as ``dataset_tools.formats.coco_jsonl`` reads it.
        split: name of a part of its split.json, None for all images.
        partly: categories of which the folder outlines only some objects.

    Raises:
        DatasetError: the folder is malformed or has no such split.
    """
    data = coco_jsonl.read(folder, split)
    complete = frozenset(map(category_name, data.categories)) - frozenset(map(category_name, partly))
    asked: dict[str, list[coco_jsonl.Expression]] = {}
    for expression in data.expressions:
        asked.setdefault(expression.image, []).append(expression)
    result = []
    for entry in data.images:
        index = {annotation.id: number for number, annotation in enumerate(entry.annotations)}
        objects = tuple(
            LabelledObject(category_name(a.category), to_coco_rle(a.mask()), a.box) for a in entry.annotations
        )
        expressions = tuple(
            LabelledExpression(e.expression, tuple(index[ann_id] for ann_id in e.ann_ids))
            for e in asked.get(entry.file_name, ())
        )
        key = file_key(entry.path)
        result.append(LabelledImage(key, entry.path, entry.height, entry.width, objects, expressions, complete))
    return result


def synthetic_examples(
    folder: Path, count: int, seed: int = 0, *, width: int = 800, height: int = 600
) -> list[LabelledImage]:
    """Drawn scenes with their expressions, for replay where there is no research data.

    Args:
        folder: where the scenes are written (``dataset_tools.synthetic.write``); a folder that already holds these
            scenes is read.
        count: number of scenes.
        seed: of the first scene; each following scene has the next one.
        width, height: size in pixels, at least 128.
    """
    from dataset_tools import synthetic

    target = folder / f"scenes_{seed}_{count}_{width}x{height}"
    if not (target / "expressions.jsonl").is_file():  # written last
        draw = partial(synthetic.draw_scene, width=width, height=height)
        synthetic.write(target, map(draw, range(seed, seed + count)), seed)
    return read_coco_jsonl(target)
