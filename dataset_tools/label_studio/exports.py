"""Accepted results of a Label Studio project as samples: from an export file of any size, or from the API.

What counts (seen in Label Studio 1.23): the regions of submitted annotations whose type is ``brushlabels``,
``polygonlabels`` or ``rectanglelabels``. Skipped annotations (``was_cancelled``) and drafts do not; neither do smart
clicks, nor the second result of type ``keypointlabels`` that carries the same ``rle`` when labels are kept selected.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from dataset_tools.categories import CATEGORIES
from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.expressions.parser import parse
from dataset_tools.label_studio.regions import WORK, Region, agreement, is_accepted, read_region
from dataset_tools.records import Origin, Provenance, Record, Sample, SourceImage, target_of

__all__ = [
    "ImportRules",
    "Problem",
    "Reading",
    "chosen_readings",
    "expression_of",
    "image_location",
    "image_path",
    "read_export",
    "read_tasks",
    "sample_of_task",
    "samples_of",
    "task_expressions",
]

Reading: TypeAlias = tuple[Mapping[str, Any], list[Region]]
"""An annotation and its accepted regions."""
Annotators: TypeAlias = Literal["ground-truth", "latest", "agreement", "all"]


@dataclass(frozen=True)
class ImportRules:
    """What to take from a project.

    Attributes:
        image_key: key of the image in the task data; None takes the first key whose value looks like one.
        expression_key: key of the expression (or list of expressions) in the task data.
        annotators: which annotation of a task counts: ``ground-truth`` (the one marked so, else the latest),
            ``latest`` (last updated), ``agreement`` (the one that agrees best with the others, if the mean IoU
            reaches ``agreement``), ``all``.
        agreement: least mean IoU with the others for ``agreement``.
        images: folder with the images, for tasks whose image is an upload or a URL; None leaves them unresolved.
        hash_annotators: key with which annotator ids are hashed; None keeps the ids.
    """

    image_key: str | None = None
    expression_key: str = "expression"
    annotators: Annotators = "ground-truth"
    agreement: float = 0.8
    images: Path | None = None
    hash_annotators: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something that was left out: the task and why."""

    task: int | str | None
    message: str


def read_export(path: Path, rules: ImportRules, problems: list[Problem]) -> Iterator[Sample]:
    """Samples of a JSON export (a list of tasks), read task by task.

    Args:
        path: the file; it may be larger than memory.
        rules: what to take.
        problems: receives what was left out.

    Raises:
        DatasetError: the file is missing or no list of tasks; what was read before stays valid.
    """
    yield from samples_of(read_tasks(path), rules, problems)


def samples_of(tasks: Iterable[Mapping[str, Any]], rules: ImportRules, problems: list[Problem]) -> Iterator[Sample]:
    """Samples of tasks as exports and the API hold them; see :func:`read_export`."""
    for task in tasks:
        try:
            sample = sample_of_task(task, rules, problems)
        except (DatasetError, MaskError) as error:
            problems.append(Problem(task.get("id"), str(error)))
            continue
        if sample is not None:
            yield sample


def read_tasks(path: Path) -> Iterator[Mapping[str, Any]]:
    """The tasks of a JSON export (a list of tasks), one by one; the file may be larger than memory.

    Raises:
        DatasetError: the file is missing or no list of tasks.
    """
    import ijson

    try:
        with path.open("rb") as file:
            for number, task in enumerate(ijson.items(file, "item", use_float=True)):
                if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
                    raise DatasetError(f"{path}: entry {number} is no task (an object with 'data'); export as JSON")
                yield task
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except ijson.JSONError as error:
        raise DatasetError(f"{path} is not valid JSON, or cut off: {error}") from error


def sample_of_task(task: Mapping[str, Any], rules: ImportRules, problems: list[Problem]) -> Sample | None:
    """The accepted records of one task; None if nothing was accepted.

    Raises:
        DatasetError: the task has no image, or its regions cannot be read as one image.
        MaskError: a mask is damaged.
    """
    readings = chosen_readings(task, rules, problems)
    records = [
        record for annotation, regions in readings for record in _records(task, annotation, regions, rules, problems)
    ]
    if not records:
        return None
    height, width = next(region.mask.shape for _, regions in readings for region in regions)
    location = image_location(task, rules)
    scene = _text(task["data"].get("scene"))
    image = SourceImage(_file_name(location), width, height, _resolve(location, rules), scene)
    return Sample(image, tuple(records))


def chosen_readings(task: Mapping[str, Any], rules: ImportRules, problems: list[Problem]) -> list[Reading]:
    """The annotations of a task that count by ``rules.annotators``, with their accepted regions, none of them empty.

    Raises:
        DatasetError: the annotations carry no results, or their regions are for images of different sizes.
        MaskError: a mask is damaged.
    """
    annotations = [a for a in task.get("annotations") or [] if not a.get("was_cancelled")]
    # JSON_MIN and other flat exports carry no results.
    if any(not isinstance(annotation.get("result"), list) for annotation in annotations):
        raise DatasetError("its annotations have no 'result'; export the project as JSON, not as JSON-MIN")
    readings = []
    for annotation in annotations:
        regions = [read_region(result, annotation) for result in annotation["result"] if is_accepted(result)]
        readings.append((annotation, [region for region in regions if region.mask.any()]))
    sizes = {region.mask.shape for _, regions in readings for region in regions}
    if len(sizes) > 1:
        raise DatasetError(f"its regions are for images of different sizes {sorted(sizes)} (height, width)")
    return _chosen(readings, rules, task, problems) if readings else []


def _typed(annotation: Mapping[str, Any], region: str | None) -> list[str]:
    """Texts typed for a region (a per-region TextArea shares its id), for None those of the prompt; newest first."""
    shapes = {result.get("id") for result in annotation["result"] if is_accepted(result)}
    texts: list[str] = []
    for result in reversed(annotation["result"]):
        owner = result.get("id") if result.get("id") in shapes else None
        if result.get("type") == "textarea" and owner == region:
            text = (result.get("value") or {}).get("text") or []
            texts += [str(line).strip() for line in reversed([text] if isinstance(text, str) else text)]
    return [text for text in texts if text]


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
    """One record per expression and category of an annotation."""
    groups: dict[tuple[str, str], list[Region]] = {}
    for number, region in enumerate(regions):
        text = expression_of(task, annotation, regions, number, rules)
        if text is None:
            problems.append(Problem(task.get("id"), f"region {number + 1} ({region.label}) has no expression"))
            continue
        category = region.label or "object"
        if category not in CATEGORIES:  # a label like "object": the words say what it is
            category = parse(text).category or category
        groups.setdefault((text, category), []).append(region)
    completed = annotation.get("completed_by")
    annotator = completed.get("id") if isinstance(completed, dict) else completed
    for (text, category), members in groups.items():
        clicks = [region.clicks for region in members if region.clicks is not None]
        scores = [region.score for region in members if region.score is not None]
        provenance = Provenance(
            source="label-studio",
            task=task.get("id"),
            annotation=annotation.get("id"),
            annotator=_hashed(annotator, rules.hash_annotators),
            lead_time=annotation.get("lead_time"),
            model_version=next((region.model for region in members if region.model), None),
            origin=_most_work(members),
            clicks=sum(clicks) if clicks else None,
            score=min(scores) if scores else None,
            generated=bool(task["data"].get("generated")) or None,
        )
        targets = tuple(dict.fromkeys(target_of(region.mask) for region in members))
        kind = _text(task["data"].get("kind"))
        yield Record(text, category, targets, _text(task["data"].get("split")), kind, provenance)


def _most_work(regions: Sequence[Region]) -> Origin | None:
    origins: list[Origin] = [region.origin for region in regions if region.origin is not None]
    return max(origins, key=lambda origin: WORK[origin], default=None)


def expression_of(
    task: Mapping[str, Any],
    annotation: Mapping[str, Any],
    regions: Sequence[Region],
    number: int,
    rules: ImportRules,
) -> str | None:
    """The words that region ``number`` answers, None if that cannot be told.

    In this order: what the region itself says or what was typed for it; a text of the prompt, then of the task's data,
    that names the region's category; a prompt that names no known category; the task's only text, or the one in the
    region's place if there are as many texts as regions.
    """
    region = regions[number]
    own = [region.expression] if region.expression else _typed(annotation, region.id) if region.id else []
    if own:
        return own[0]
    texts = task_expressions(task, rules)
    prompts = _typed(annotation, None)
    named = {text: parse(text).category for text in (*prompts, *texts)}
    for choice in (prompts, texts):
        naming = [text for text in choice if named[text] == region.label]
        if naming and (choice is prompts or len(naming) == 1):
            return naming[0]
    vague = [text for text in prompts if named[text] is None or region.label not in CATEGORIES]
    if vague:
        return vague[0]
    if len(texts) == 1:
        return texts[0]
    return texts[number] if len(texts) == len(regions) else None


def task_expressions(task: Mapping[str, Any], rules: ImportRules) -> list[str]:
    """The expressions in a task's data."""
    value = task["data"].get(rules.expression_key)
    given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [text.strip() for text in given if isinstance(text, str) and text.strip()]


def _hashed(annotator: Any, key: str | None) -> int | str | None:
    if annotator is None or key is None:
        return annotator if isinstance(annotator, int | str) else None
    return hmac.new(key.encode(), str(annotator).encode(), hashlib.sha256).hexdigest()[:16]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def image_location(task: Mapping[str, Any], rules: ImportRules) -> str:
    """The address of a task's image as it stands in its data; raises DatasetError where it has none."""
    data = task["data"]
    if rules.image_key is not None:
        value = data.get(rules.image_key)
        if not isinstance(value, str):
            raise DatasetError(f"its data has no image under {rules.image_key!r}; it has {sorted(data)}")
        return value
    for key in ("image", *sorted(data)):
        value = data.get(key)
        if isinstance(value, str) and re.search(r"(^/data/|://|\.(jpe?g|png|tiff?|webp|bmp)$)", value, re.IGNORECASE):
            return value
    raise DatasetError(f"its data holds no image; it has {sorted(data)} (--image-key names one)")


def _file_name(location: str) -> str:
    """A short name for the image: its own, without the random prefix that uploads get."""
    name = PurePosixPath(image_path(location)).name
    return re.sub(r"^[0-9a-f]{8}-", "", name) if "/data/upload/" in location else name


def image_path(location: str) -> str:
    """Where a folder of fetched images has this one: under its path, those of other hosts under ``<host>/<path>``.

    Raises:
        DatasetError: it is no address.
    """
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise DatasetError(f"the address {location!r:.200} of its image cannot be read: {error}") from None
    path = unquote(parse_qs(parts.query).get("d", [parts.path])[0]).lstrip("/")
    return f"{parts.netloc}/{path}" if parts.netloc else path


def _resolve(location: str, rules: ImportRules) -> str | None:
    """A local file for the image if ``rules.images`` has it, by its path or by its name; else the location itself."""
    if rules.images is None:
        return location
    full = image_path(location)
    path = full.removeprefix(f"{urlsplit(location).netloc}/")
    names = (PurePosixPath(path).name, _file_name(location))
    for candidate in (full, path, path.removeprefix("data/upload/"), *names):
        file = (rules.images / candidate).resolve()
        if file.is_file() and file.is_relative_to(rules.images.resolve()):
            return str(file)
    return location
