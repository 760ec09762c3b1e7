"""Accepted results of a Label Studio project as samples: from an export file of any size, or from the API.

What counts (seen in Label Studio 1.23): the regions of submitted annotations whose type is one of
``shapes.SHAPES``, each object once, under its own words, on its own image. Skipped annotations (``was_cancelled``)
and drafts do not; neither do smart clicks, nor the second result of type ``keypointlabels`` that carries the same
``rle`` when labels are kept selected.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

from dataset_tools import image_files
from dataset_tools.categories import CATEGORIES
from dataset_tools.errors import UNUSABLE, DatasetError, ImageError, MaskError
from dataset_tools.expressions.lexicon import own_nouns
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.reading import WordsRead, reading_of
from dataset_tools.label_studio.annotations import (
    BOX,
    PREDICTED,
    annotations_of,
    lines,
    objects_of,
    prediction_as_annotation,
    unread,
    words_of,
)
from dataset_tools.label_studio.images import file_name, image_at, joined, local_file, value_at
from dataset_tools.label_studio.import_rules import ImportRules, Problem
from dataset_tools.label_studio.learnt_nouns import in_known_words
from dataset_tools.label_studio.notes import UNDECIDED
from dataset_tools.label_studio.regions import WORK, Region, agreement, fate_of, several_labels
from dataset_tools.label_studio.shapes import SHAPES
from dataset_tools.records import FATES, Origin, Provenance, Record, Sample, SourceImage, Target, local_path

__all__ = [
    "ImageReading",
    "Reading",
    "chosen_readings",
    "read_tasks",
    "samples_of",
    "samples_of_task",
    "task_expressions",
]

logger = logging.getLogger(__name__)

Reading: TypeAlias = tuple[Mapping[str, Any], list[Region]]
"""An annotation and its accepted regions."""
_AS_DRAWN = (
    "rectangles of {!r} are taken as drawn masks; if that is a smart tool, they are prompts whose suggestion was never"
    " accepted, and no objects: delete them"
)


@dataclass
class ImageReading:
    """What the annotations of a task that count say of one of its images.

    Attributes:
        location: the image's address as it stands in the task's data.
        annotations: the annotations with their objects on this image.
        size: (height, width) in pixels that the objects are for; None without any.
    """

    location: str
    annotations: list[Reading] = field(default_factory=list)
    size: tuple[int, int] | None = None


def samples_of(tasks: Iterable[Mapping[str, Any]], rules: ImportRules, problems: list[Problem]) -> Iterator[Sample]:
    """Samples of tasks as exports and the API hold them, one for each image.

    Args:
        tasks: read one by one.
        rules: what to take.
        problems: receives what was left out.
    """
    yield from joined(_samples(tasks, rules, problems))


def _samples(tasks: Iterable[Mapping[str, Any]], rules: ImportRules, problems: list[Problem]) -> Iterator[Sample]:
    said: set[str] = set()
    count, some = 0, False
    for count, task in enumerate(tasks, start=1):  # noqa: B007 - told at the end
        found: list[Problem] = []
        try:
            for sample in samples_of_task(task, rules, found):
                some = True
                yield sample
        except (DatasetError, MaskError) as error:
            found.append(Problem(task.get("id"), str(error)))
        except (*UNUSABLE, OSError) as error:  # it has another form than Label Studio writes, or names no file can have
            found.append(Problem(task.get("id"), f"it cannot be read: {type(error).__name__}: {error}"[:300]))
        for problem in found:
            if problem.kind != "note":
                problems.append(problem)
            elif problem.message not in said:
                said.add(problem.message)
                logger.warning("task %s: %s", problem.task, problem.message)
    if count and not some and not problems:
        message = "hold no accepted object and no confirmed absence: nothing was submitted, or it was skipped"
        problems.append(Problem(None, f"its {count:,} tasks {message}"))


def read_tasks(path: Path) -> Iterator[Mapping[str, Any]]:
    """The tasks of a JSON export (a list of tasks), one by one; the file may be larger than memory.

    Raises:
        DatasetError: the file is missing or no list of tasks.
    """
    import ijson

    try:
        with path.open("rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":  # a byte order mark, as some editors write
                file.seek(0)
            start = file.tell()
            first = file.read(4096).lstrip()[:1]
            if first == b"{":
                raise DatasetError(f"{path} is an object, no list of tasks; export the project as JSON")
            file.seek(start)
            for number, task in enumerate(ijson.items(file, "item", use_float=True)):
                if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
                    raise DatasetError(f"{path}: entry {number} is no task (an object with 'data'); export as JSON")
                yield task
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except ijson.JSONError as error:
        raise DatasetError(f"{path} is not valid JSON, or cut off: {error}") from error


def samples_of_task(task: Mapping[str, Any], rules: ImportRules, problems: list[Problem]) -> Iterator[Sample]:
    """The accepted records of one task, one sample for each of its images; none if nothing was accepted.

    An annotation that was submitted with no result says that the task's expressions name nothing in its image.

    Raises:
        DatasetError: the task has no image, or its regions cannot be read as one image.
        MaskError: a mask is damaged.
    """
    for reading in chosen_readings(task, rules, problems):
        records = [
            record
            for annotation, regions in reading.annotations
            for record in _records(task, annotation, regions, rules, problems)
        ]
        if records:
            yield Sample(_source_image(task, reading, rules), tuple(records))


def _source_image(task: Mapping[str, Any], reading: ImageReading, rules: ImportRules) -> SourceImage:
    location = local_file(reading.location, rules.images)
    name, scene = file_name(reading.location), _text(task["data"].get("scene"))
    tile = task["data"].get("tile")  # where it lies on the map, as `pslg import-images` keeps it
    extra = tile if isinstance(tile, dict) else {}
    if reading.size is not None:
        height, width = reading.size
    else:
        try:
            height, width = image_files.read(local_path(SourceImage(name, 0, 0, location))).shape[:2]
        except (DatasetError, ImageError) as error:
            raise DatasetError(f"it was submitted empty, and its image is needed for that: {error}") from None
    return SourceImage(name, width, height, location, scene, extra)


def chosen_readings(task: Mapping[str, Any], rules: ImportRules, problems: list[Problem]) -> list[ImageReading]:
    """The annotations of a task that count by ``rules.annotators``, with their objects, for each image of the task.

    Raises:
        DatasetError: the annotations carry no results, it cannot be told on which image they are, or the regions of
            one image are for images of different sizes.
        MaskError: a mask is damaged.
    """
    readings: list[Reading] = []
    given = annotations_of(task)
    if rules.predictions and not given:
        given = prediction_as_annotation(task, rules.model_version)
    for annotation in given:
        if kinds := unread(annotation["result"]):
            what = f"its regions of type {', '.join(kinds)} are not read; those of {', '.join(SHAPES)} are"
            problems.append(Problem(task.get("id"), what))
        if several := several_labels(annotation["result"]):
            what = f"regions with several labels ({'; '.join(several)}) are taken under the first"
            problems.append(Problem(task.get("id"), what, "note"))
        readings.append((annotation, objects_of(annotation)))
    chosen = _chosen(readings, rules, task, problems) if readings else []
    places = sorted({(region.image, region.item) for _, regions in chosen for region in regions}, key=str)
    if not places and any(_says_absent(annotation) for annotation, _ in chosen):
        places = [(None, None)]
    elif chosen and not places and not any(problem.task == task.get("id") for problem in problems):
        problems.append(_undecided(task, [annotation for annotation, _ in chosen]))
    only = len({tag for tag, _ in places}) < 2
    found: dict[str, ImageReading] = {}
    for tag, item in places:
        try:
            location = image_at(task["data"], tag, item, rules.image_key, only=only)
        except DatasetError as error:
            if len(places) < 2:
                raise
            problems.append(Problem(task.get("id"), str(error)))
            continue
        reading = found.setdefault(location, ImageReading(location))
        for annotation, regions in chosen:
            here = [region for region in regions if (region.image, region.item) == (tag, item)]
            if here or _says_absent(annotation):
                reading.annotations.append((annotation, here))
    for reading in found.values():
        sizes = {region.size for _, regions in reading.annotations for region in regions}
        if len(sizes) > 1:
            raise DatasetError(f"its regions are for images of different sizes {sorted(sizes)} (height, width)")
        reading.size = next(iter(sizes), None)
    return list(found.values())


def _undecided(task: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> Problem:
    """Why annotations with results, none of which is an object, say nothing."""
    results = [result for annotation in annotations for result in annotation["result"]]
    kinds = sorted({str(result.get("type")) for result in results})
    begin = "it was submitted without an object, but not empty:"
    if texts := [text for result in results if result.get("type") in ("textarea", UNDECIDED) for text in lines(result)]:
        what = (
            f"nothing was accepted for what was typed ({'; '.join(texts)[:80]}); whether the task's expressions name"
            " nothing in its image cannot be told: if so, delete the texts and update it"
        )
    elif UNDECIDED in kinds:
        what = "none of several candidates was chosen; keep the one that is meant, or delete all if there is none"
    else:
        what = f"it holds {', '.join(kinds)} alone"
    lost = bool({*SHAPES, UNDECIDED, "textarea"}.intersection(kinds))
    return Problem(task.get("id"), f"{begin} {what}", "left-out" if lost else "note")


def _says_absent(annotation: Mapping[str, Any]) -> bool:
    return not annotation["result"]


def _chosen(
    readings: Sequence[Reading],
    rules: ImportRules,
    task: Mapping[str, Any],
    problems: list[Problem],
) -> list[Reading]:
    """The annotations that count by ``rules.annotators``."""
    if rules.annotators == "all" or len(readings) == 1:
        return list(readings)
    latest = max(readings, key=lambda reading: str(reading[0].get("updated_at") or reading[0].get("created_at") or ""))
    if rules.annotators == "latest":
        return [latest]
    if rules.annotators == "ground-truth":
        return [reading for reading in readings if reading[0].get("ground_truth")][:1] or [latest]
    scores = [0.0] * len(readings)
    for i, j in combinations(range(len(readings)), 2):
        overlap = agreement(readings[i][1], readings[j][1])
        scores[i] += overlap / (len(readings) - 1)
        scores[j] += overlap / (len(readings) - 1)
    best = scores.index(max(scores))
    if scores[best] < rules.agreement:
        message = (
            f"its {len(readings)} annotations agree by {scores[best]:.2f} IoU at best, less than {rules.agreement}"
        )
        problems.append(Problem(task.get("id"), message))
        return []
    return [readings[best]]


def _records(
    task: Mapping[str, Any],
    annotation: Mapping[str, Any],
    regions: Sequence[Region],
    rules: ImportRules,
    problems: list[Problem],
) -> Iterator[Record]:
    """One record per expression and category of an annotation; objects without words have a record without words."""
    texts = task_expressions(task, rules)
    groups: dict[tuple[str, str], list[Region]] = {}
    # The labels of the annotation are nouns, whether or not the lexicon holds them.
    own = own_nouns([region.label for region in regions if region.label])
    words = words_of(regions, annotation["result"], texts, own, rules.nouns)
    for number, (region, text) in enumerate(zip(regions, words, strict=True), start=1):
        if text is None:
            problems.append(Problem(task.get("id"), _wordless(task, number, region, texts, rules), "wordless"))
        if region.kind == BOX:
            problems.append(Problem(task.get("id"), _AS_DRAWN.format(region.control), "note"))
        category = region.label or "object"
        if category not in CATEGORIES and text is not None:  # a label like "object": the words say what it is
            category = parse(in_known_words(text, own, rules.nouns).text, own).category or category
        groups.setdefault((text or "", category), []).append(region)
    if _says_absent(annotation):
        asked = {text: in_known_words(text, (), rules.nouns).text for text in texts}
        given = _text(task["data"].get("category"))
        groups = {(text, parse(asked[text]).category or given or "object"): [] for text in texts}
    completed = annotation.get("completed_by")
    annotator = completed.get("id") if isinstance(completed, dict) else completed
    for (text, category), members in groups.items():
        clicks = [region.clicks for region in members if region.clicks is not None]
        scores = [region.score for region in members if region.score is not None]
        reading = _reading(text, category, members, rules)
        targets = tuple(dict.fromkeys(Target(region.rle["counts"]) for region in members))
        kind = _text(task["data"].get("kind")) or (None if targets else "absent")
        split = _text(task["data"].get("split"))
        provenance = Provenance(
            source=PREDICTED if annotation.get(PREDICTED) else "label-studio",
            task=task.get("id"),
            annotation=annotation.get("id"),
            annotator=_hashed(annotator, rules.hash_annotators),
            lead_time=lead if isinstance(lead := annotation.get("lead_time"), int | float) else None,
            model_version=next((region.model for region in members if region.model), None),
            origin=_most_work(members),
            clicks=sum(clicks) if clicks else None,
            score=min(scores) if scores else None,
            generated=bool(task["data"].get("generated")) or None,
            fate=max((fate_of(region, texts) for region in members), key=FATES.index, default=None),
            guessed=reading.guessed,
            unread=reading.unread,
            mixed=len({region.expression for region in members}) > 1 or None,
        )
        yield Record(text, category, targets, split, kind, provenance)


def _reading(text: str, category: str, members: Sequence[Region], rules: ImportRules) -> WordsRead:
    """As the server read it when it answered, else as it is read now."""
    for region in members:
        if region.expression == text:
            return region.reading
    if not text:
        return WordsRead()
    own = frozenset() if category in CATEGORIES else frozenset((category,))
    asked = in_known_words(text, own, rules.nouns)
    reading = reading_of(asked.text, own)
    return replace(reading, guessed=(*reading.guessed, *asked.guessed))


def _most_work(regions: Sequence[Region]) -> Origin | None:
    origins: list[Origin] = [region.origin for region in regions if region.origin is not None]
    return max(origins, key=lambda origin: WORK[origin], default=None)


def _wordless(task: Mapping[str, Any], number: int, region: Region, texts: Sequence[str], rules: ImportRules) -> str:
    """Why a region is without words, and what helps."""
    begin = f"region {number} ({region.label}) has no expression"
    if not texts and value_at(task["data"], rules.expression_key) is None:
        return f"{begin}: no {rules.expression_key!r} in its data {sorted(task['data'])} (--expression-key names it)"
    if not texts:
        return f"{begin}: {rules.expression_key!r} is empty in its data, and no text was typed for it"
    return (
        f"{begin}: it was clicked, boxed or drawn, and the task's words ({'; '.join(texts)[:80]}) are another region's"
        " or could mean several; a per-region text says what it is"
    )


def task_expressions(task: Mapping[str, Any], rules: ImportRules) -> list[str]:
    """The expressions in a task's data."""
    value = value_at(task["data"], rules.expression_key)
    given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [text.strip() for text in given if isinstance(text, str) and text.strip()]


def _hashed(annotator: Any, key: str | None) -> int | str | None:
    if annotator is None or key is None:
        return annotator if isinstance(annotator, int | str) else None
    return hmac.new(key.encode(), str(annotator).encode(), hashlib.sha256).hexdigest()[:16]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
