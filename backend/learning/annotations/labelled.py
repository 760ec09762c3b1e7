"""A project's accepted masks as labelled images, for training and for the promotion gate.

Of a task's annotations one counts, as in ``pslg dataset export``: the one marked as ground truth, else the last. Tasks
with the same image become one labelled image; an object that several of them outline is there once. An annotation that
was submitted with no result says that its expression names nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from backend.learning.annotations.project_nouns import ProjectNouns
from backend.learning.annotations.store import AnnotationRow, AnnotationStore
from dataset_tools.categories import CATEGORIES, category_name
from dataset_tools.errors import DatasetError, ImageError, MaskError
from dataset_tools.expressions.lexicon import own_nouns, says_nothing
from dataset_tools.expressions.parser import parse
from dataset_tools.label_studio.annotations import BOX, SAME_OBJECT, words_of
from dataset_tools.label_studio.exports import ImageReading, chosen_readings, task_expressions
from dataset_tools.label_studio.import_rules import ImportRules, Problem
from dataset_tools.label_studio.learnt_nouns import in_known_words
from dataset_tools.labelled import LabelledExpression, LabelledImage, LabelledObject

__all__ = ["FetchImage", "ImageFile", "labelled_images", "project_categories", "task_images"]

_RULES = ImportRules()


@dataclass(frozen=True)
class ImageFile:
    """A local file of a task's image: its sha256, its path, and its upright size in pixels."""

    key: str
    path: Path
    height: int
    width: int


FetchImage = Callable[[str, int], ImageFile]
"""From the address in a task's data and the task's id; raises ImageError or OSError."""


@dataclass
class _Gathered:
    """What the tasks seen so far say about one image.

    Attributes:
        single: categories of which an expression says that there is exactly one.
    """

    file: ImageFile
    objects: list[LabelledObject] = field(default_factory=list)
    expressions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    single: set[str] = field(default_factory=set)

    def add(self, found: LabelledObject) -> int:
        """The object's index; that of the same object if an earlier task outlined it (the later outline stays)."""
        for index, known in enumerate(self.objects):
            if known.category == found.category and _overlap(known, found) >= SAME_OBJECT:
                self.objects[index] = found
                return index
        self.objects.append(found)
        return len(self.objects) - 1

    def all_complete(self) -> frozenset[str]:
        """The categories of which every object is outlined; "the X" counts while all tasks together outline one X."""
        counts = Counter(item.category for item in self.objects)
        return frozenset(self.complete | {name for name in self.single if counts[name] == 1})


def labelled_images(
    store: AnnotationStore,
    project: int,
    fetch: FetchImage,
    problems: list[Problem],
    progress: Callable[[int], object] = lambda _n: None,
) -> list[LabelledImage]:
    """The images of a project with everything that was accepted in them, by their keys.

    Args:
        store: the annotations.
        project: the project's id.
        fetch: gets the file of an image.
        problems: receives what was left out: images that cannot be had or read, masks of another size, damaged ones.
        progress: called with 1 after every task.
    """
    own, nouns = project_categories(store, project), ProjectNouns(store).of(project)
    return _images_of(store.annotated_tasks(project), fetch, problems, own, nouns, progress)


def task_images(
    rows: Sequence[AnnotationRow],
    fetch: FetchImage,
    problems: list[Problem],
    own: Collection[str],
    nouns: Mapping[str, str],
) -> list[LabelledImage]:
    """The same of one task alone.

    ``own`` are names of its labels that are no canonical category, ``nouns`` its annotators' (``ProjectNouns``).
    """
    return _images_of([rows], fetch, problems, own, nouns, lambda _n: None)


def _images_of(
    tasks: Iterable[Sequence[AnnotationRow]],
    fetch: FetchImage,
    problems: list[Problem],
    own: Collection[str],
    nouns: Mapping[str, str],
    progress: Callable[[int], object],
) -> list[LabelledImage]:
    gathered: dict[str, _Gathered] = {}
    for rows in tasks:
        submitted = [row for row in rows if not row.skipped]
        if submitted:
            try:
                _gather(gathered, submitted, fetch, problems, own, nouns)
            except (DatasetError, MaskError, ImageError, OSError) as error:
                problems.append(Problem(rows[0].task, str(error)))
        progress(1)
    return [
        LabelledImage(
            path=found.file.path,
            height=found.file.height,
            width=found.file.width,
            objects=tuple(found.objects),
            expressions=tuple(LabelledExpression(text, objects) for text, objects in found.expressions.items()),
            complete=found.all_complete(),
            sha256=key,
        )
        for key, found in sorted(gathered.items())
    ]


def project_categories(store: AnnotationStore, project: int) -> frozenset[str]:
    """Names of what the project's accepted regions are labelled as (``own_nouns``)."""
    return own_categories(store.annotations(project))


def own_categories(rows: Iterable[AnnotationRow]) -> frozenset[str]:
    """Names of what the accepted regions of these annotations are labelled as (``own_nouns``)."""
    labels = {region.label for row in rows if not row.skipped for region in row.regions}
    return own_nouns(filter(None, labels))


def _gather(
    gathered: dict[str, _Gathered],
    rows: Sequence[AnnotationRow],
    fetch: FetchImage,
    problems: list[Problem],
    own: Collection[str],
    nouns: Mapping[str, str],
) -> None:
    """Add what one task says to its image."""
    task: dict[str, Any] = {
        "id": rows[0].task,
        "data": rows[0].data,
        "annotations": [row.body for row in rows],
    }
    for reading in chosen_readings(task, _RULES, problems):
        # A rectangle that is no outlined object's box may be left over from a smart box: it outlines nothing.
        reading.annotations = [(found, [r for r in each if r.kind != BOX]) for found, each in reading.annotations]
        if not any(regions or not annotation["result"] for annotation, regions in reading.annotations):
            continue  # a click that was never accepted, say: that says nothing
        file = fetch(reading.location, rows[0].task)
        shapes = {region.size for _, regions in reading.annotations for region in regions}
        sizes = shapes - {(file.height, file.width)}
        if sizes:
            message = f"its masks have the size {sizes}, its image {file.height, file.width}"
            problems.append(Problem(task["id"], message))
            continue
        image = gathered.setdefault(file.key, _Gathered(file))
        _gather_image(image, reading, task_expressions(task, _RULES), own, nouns)


def _gather_image(
    image: _Gathered, reading: ImageReading, texts: Sequence[str], own: Collection[str], nouns: Mapping[str, str]
) -> None:
    """Add what a task's annotations say about one image; the words as the server asks its model."""
    for annotation, regions in reading.annotations:
        named: dict[str, list[int]] = {}
        words = words_of(regions, annotation["result"], texts, own, nouns)
        asked = [None if text is None else in_known_words(text, own, nouns).text for text in words]
        for region, text in zip(regions, asked, strict=True):
            category = _category(region.label, text, own)
            index = image.add(LabelledObject.of(category, region.mask))
            if text is not None and parse(text, own).category in (None, category):
                named.setdefault(text, []).append(index)
        if not annotation["result"]:
            named = {in_known_words(text, own, nouns).text: [] for text in texts}
        for text, indices in named.items():
            image.expressions[text] = tuple(dict.fromkeys(indices))
            query = parse(text, own)
            if query.category is not None and query.says_one and len(image.expressions[text]) == 1:
                image.single.add(query.category)
            if query.category is not None and not query.constraints and (query.is_all or not indices):
                image.complete.add(query.category)


def _category(label: str | None, text: str | None, own: Collection[str]) -> str:
    """The label's category; that of the words where the label says nothing."""
    name = category_name(label or "object")
    if name in CATEGORIES or not says_nothing(name):
        return name
    return (parse(text, own).category if text is not None else None) or name


def _overlap(first: LabelledObject, second: LabelledObject) -> float:
    """IoU of two masks of one image, without decoding them."""
    a, b = first.box, second.box
    if min(a.x1, b.x1) <= max(a.x0, b.x0) or min(a.y1, b.y1) <= max(a.y0, b.y0):
        return 0.0
    return float(coco_mask.iou([_coded(first)], [_coded(second)], [0])[0][0])


def _coded(found: LabelledObject) -> dict[str, Any]:
    counts = found.rle["counts"]
    return {**found.rle, "counts": counts.encode() if isinstance(counts, str) else counts}
