"""Which expressions of a dataset become the demo's tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dataset_tools.formats import coco_jsonl
from dataset_tools.formats.coco_jsonl import CocoJsonl, Expression


def read_dataset(folder: Path) -> CocoJsonl:
    """Read a ``coco_jsonl`` folder: its ``test`` split, which the shipped weights never saw, or all without one.

    Raises:
        DatasetError: the folder is no such dataset.
    """
    dataset = coco_jsonl.read(folder)
    return coco_jsonl.read(folder, "test") if dataset.split.get("test") else dataset


def sample_expressions(expressions: Sequence[Expression], count: int) -> list[Expression]:
    """``count`` expressions (or all, when there are fewer), the same ones every time.

    One kind after the other has its turn, so that rare kinds ("all", "absent") are in; within a kind, the category and
    the image used least so far come first.
    """
    waiting: dict[str, list[Expression]] = {}
    for expression in expressions:
        waiting.setdefault(expression.kind, []).append(expression)
    chosen: list[Expression] = []
    images: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    while waiting and len(chosen) < count:
        for kind in sorted(waiting):
            if len(chosen) == count:
                break
            following = min(waiting[kind], key=lambda item: (categories[item.category], images[item.image], item.id))
            waiting[kind].remove(following)
            if not waiting[kind]:
                del waiting[kind]
            images[following.image] += 1
            categories[following.category] += 1
            chosen.append(following)
    return sorted(chosen, key=lambda item: item.id)
