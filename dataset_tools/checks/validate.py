"""Checks of a dataset: everything that fails silently in at least one public loader, and what words and masks betray.

:func:`validate` reads a dataset sample by sample. Checks of one sample are in :func:`check_sample`; those that need
the whole dataset (splits, duplicates) look at hashes and names only, so memory stays small. What REFER's own files can
hide from a reader is looked at in :mod:`.refer`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataset_tools import colors, duplicates, formats, image_files
from dataset_tools.categories import CATEGORIES
from dataset_tools.checks.findings import Finding
from dataset_tools.errors import PslgError
from dataset_tools.expressions.lexicon import own_nouns
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Color, Query
from dataset_tools.expressions.relations import LabelledBox, choose
from dataset_tools.formats.items import SPLITS, display_name
from dataset_tools.formats.left_out import LeftOut
from dataset_tools.geometry import Box
from dataset_tools.maps.footprints import Footprint, footprint, overlapping
from dataset_tools.masks import Mask
from dataset_tools.records import Record, Sample, local_path

MAX_PIECES = 18
"""Word pieces that fit beside [CLS] and [SEP] into the 20 tokens of the field's loaders."""
_BOX_FILL = 0.985
_BOX_SIDE = 24
# These are rectangles in reality.
_BOX_SHAPED = {"tenniscourt", "basketballcourt", "building", "bridge", "vehicle", "harbor", "trainstation"}
_OVERLAP_SAME = 0.5

RGB = npt.NDArray[np.uint8]


@dataclass
class Report:
    """All findings of a dataset and what was looked at."""

    root: Path
    format: str
    images: int = 0
    records: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of findings that are warnings."""
        return len(self.findings) - self.errors


def validate(
    root: Path, name: str | None = None, *, pixels: bool = True, progress: Callable[[int], object] = lambda _n: None
) -> Report:
    """Check a dataset folder.

    Args:
        root: the folder.
        name: its format; None recognises it.
        pixels: read the images too (modes, sizes, near-duplicates, colours); False looks at the index files only.
        progress: called with 1 after every image.

    Raises:
        DatasetError: the folder is of no known format. Everything else is a finding.
    """
    name = name or formats.detect(root)
    report = Report(root, name)
    if name == "refer":
        from dataset_tools.checks.refer import check_refer

        report.findings += check_refer(root)
    if name in ("coco", "coco_jsonl"):
        from dataset_tools.checks.coco import check_polygons

        report.findings += check_polygons(root)
    seen = _Seen()

    def left_out(row: LeftOut) -> None:
        # What the checks of the format's own files have found already is the same row.
        if not any((known.code, known.where) == (row.code, row.where) for known in report.findings):
            report.findings.append(Finding(row.code, row.where, row.why, row.image))

    try:
        for sample in formats.read(root, name, left_out):
            report.images += 1
            for box in sample.boxes:
                where = f"{sample.image.file_name}, object {box.id}"
                message = f"a {display_name(box.category)} has the box {_ints(box.box)} and no mask"
                report.findings.append(Finding("box-only", where, message, sample.image.file_name))
            report.records += sum(bool(record.expression) for record in sample.records)
            image = None
            if pixels:
                findings, image = _check_image(sample)
                report.findings += findings
            report.findings += check_sample(sample, image)
            seen.add(sample, image)
            progress(1)
    except PslgError as error:
        report.findings.append(Finding("unreadable", str(root), str(error)))
    report.findings += seen.findings()
    if not report.images and not report.errors:
        report.findings.append(Finding("empty", str(root), "there is no image in it"))
    return report


def _check_image(sample: Sample) -> tuple[list[Finding], RGB | None]:
    name = sample.image.file_name
    try:
        path = local_path(sample.image)
        image = image_files.read(path)
        mode = image_files.mode(path.read_bytes())
    except (PslgError, OSError) as error:
        return [Finding("image-unreadable", name, str(error), name)], None
    findings = []
    if mode != "RGB":
        findings.append(Finding("image-mode", name, f"the image has mode {mode}", name))
    height, width = image.shape[:2]
    if (width, height) != (sample.image.width, sample.image.height):
        message = f"the image has {width} x {height} pixels, its masks {sample.image.width} x {sample.image.height}"
        return [*findings, Finding("image-size", name, message, name)], None
    return findings, image


def check_sample(sample: Sample, image: RGB | None = None) -> Iterator[Finding]:
    """Findings of one image's records; colours are compared where ``image`` uint8[H, W, 3] is given."""
    masks: list[Mask | None] = []
    for index, record in enumerate(sample.records):
        masks.append(None)
        yield from _check_words(sample, index, record)
        if not record.targets:
            continue
        try:
            mask = sample.union(record)
        except PslgError as error:
            yield _finding("mask-damaged", sample, index, str(error))
            continue
        if not mask.any():
            yield _finding("mask-empty", sample, index, "the mask has no pixel")
            continue
        masks[-1] = mask
        if record.provenance.mixed:
            yield _finding("expression-mixed", sample, index, f"the masks of {record.expression!r} differ in origin")
        box = Box.of_mask(mask)
        boxy = mask.sum() >= _BOX_FILL * box.area and min(box.width, box.height) >= _BOX_SIDE
        if boxy and record.category not in _BOX_SHAPED:
            yield _finding(
                "mask-box",
                sample,
                index,
                f"a {display_name(record.category)} fills {mask.sum() / box.area:.1%} of its box",
            )
    yield from _check_meaning(sample, masks, image)


def _check_words(sample: Sample, index: int, record: Record) -> Iterator[Finding]:
    words = record.expression
    if record.category not in CATEGORIES:
        yield _finding("category-unknown", sample, index, f"the category is {record.category!r}")
    if record.split is None:
        yield _finding("split-missing", sample, index, "the record has no split")
    elif record.split not in SPLITS:
        yield _finding("split-unknown", sample, index, f"the split is {record.split!r}")
    if not words:
        return
    if not words.strip():
        yield _finding("expression-empty", sample, index, f"the expression is {words!r}")
        return
    if words != " ".join(words.split()):
        yield _finding("expression-spaces", sample, index, f"the expression is {words!r}")
    pieces = word_pieces(words)
    if pieces > MAX_PIECES:
        yield _finding("expression-long", sample, index, f"about {pieces} word pieces: {words!r}")
    named = parse(words, own_nouns([record.category])).category
    if named is not None and record.category in CATEGORIES and named != record.category:
        yield _finding(
            "category-mismatch",
            sample,
            index,
            f"{words!r} names {display_name(named)!r}, the label is {display_name(record.category)!r}",
        )


def word_pieces(expression: str) -> int:
    """A lower bound of the word pieces of an expression: its words and punctuation marks, each at least one piece."""
    return len(re.findall(r"\w+|[^\w\s]", expression))


def _check_meaning(sample: Sample, masks: list[Mask | None], image: RGB | None) -> Iterator[Finding]:
    """Repeated words, words with two targets, and words that the relation program reads otherwise."""
    by_words: dict[str, list[int]] = {}
    for index, record in enumerate(sample.records):
        if record.expression and (masks[index] is not None or not record.targets):
            by_words.setdefault(" ".join(record.expression.lower().split()), []).append(index)
    for words, indices in by_words.items():
        first = sample.records[indices[0]]
        for index in indices[1:]:
            if sample.records[index].targets == first.targets:
                yield _finding("expression-repeated", sample, index, f"{words!r} occurs twice for one object")
            else:
                absent = not (first.targets and sample.records[index].targets)
                what = "a target, and is said to mean nothing here" if absent else "two different targets"
                yield _finding("expression-two-targets", sample, index, f"{words!r} has {what}")
    objects = list(_objects(sample))
    own = own_nouns(record.category for record in sample.records)
    queries = {
        index: parse(record.expression, own)
        for index, record in enumerate(sample.records)
        if record.expression and len(record.targets) == 1 and masks[index] is not None
    }
    colored = image is not None and any(_asks_for_color(query) for query in queries.values())
    boxes = [
        LabelledBox(
            Box.of_mask(mask),
            category,
            color=colors.color_of_mask(image, mask) if colored and image is not None else None,
            area=float(mask.sum()),
        )
        for category, mask in objects
    ]
    outlines = [mask for _, mask in objects]
    for index, query in queries.items():
        target = masks[index]
        if target is not None and len(boxes) > 1:
            yield from _check_relation(sample, index, query, target, boxes, outlines)


def _asks_for_color(query: Query) -> bool:
    return any(isinstance(constraint, Color) for constraint in query.constraints)


def _check_relation(
    sample: Sample, index: int, query: Query, target: Mask, boxes: list[LabelledBox], masks: list[Mask]
) -> Iterator[Finding]:
    record = sample.records[index]
    if query.category != record.category or query.is_all or query.unknown_words:
        return
    choice = choose(query, boxes, (sample.image.height, sample.image.width))
    if choice.code == "ambiguous":
        yield _finding("expression-ambiguous", sample, index, choice.message)
    elif choice.code is None and choice.indices:
        chosen = masks[choice.indices[0]]
        if (chosen & target).sum() < _OVERLAP_SAME * min(chosen.sum(), target.sum()):
            box = _ints(boxes[choice.indices[0]].box)
            message = f"{record.expression!r} fits another {display_name(record.category)} better (box {box})"
            yield _finding("expression-other", sample, index, message)


def _objects(sample: Sample) -> Iterator[tuple[str, Mask]]:
    """Every outlined object of the image once: (category, mask)."""
    seen = set()
    for record in sample.records:
        for target in record.targets:
            if target.counts not in seen:
                seen.add(target.counts)
                try:
                    mask = sample.masks(Record("", record.category, (target,)))[0]
                except PslgError:
                    continue
                if mask.any():
                    yield record.category, mask


def _ints(box: Box) -> tuple[int, ...]:
    return tuple(int(value) for value in box)


def _finding(code: str, sample: Sample, index: int, message: str) -> Finding:
    record = sample.records[index]
    name = sample.image.file_name
    where = f"{name}, record {record.id if record.id is not None else index + 1}"
    return Finding(code, where, message, name, index)


def fixed(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples without what can be mended without judgement; the exporter mends the rest (modes, ids, dialects).

    Blanks are trimmed; records without words or with an empty or damaged mask, and words repeated for one object, go.
    """
    for sample in samples:
        kept: dict[tuple[object, ...], Record] = {}
        for number, record in enumerate(sample.records):
            words = " ".join(record.expression.split())
            if record.expression and not words:
                continue
            try:
                empty = bool(record.targets) and not sample.area(record)
            except PslgError:
                continue
            if not empty:
                key = (words.lower(), record.targets, record.split) if words else (number,)
                kept.setdefault(key, replace(record, expression=words))
        if kept or not sample.records:
            yield replace(sample, records=tuple(kept.values()))


class _Seen:
    """Scenes, splits and hashes of all images."""

    def __init__(self) -> None:
        self._scenes: dict[str, dict[str, str]] = {}
        self._splits: dict[str, set[str]] = {}
        self._hashes: list[tuple[str, duplicates.Bits | None]] = []
        self._places: list[Footprint] = []

    def add(self, sample: Sample, image: RGB | None) -> None:
        name = sample.image.file_name
        self._splits[name] = {split for split in sample.splits if split}
        for split in self._splits[name]:
            self._scenes.setdefault(sample.image.cut_from or name, {}).setdefault(split, name)
        with contextlib.suppress(PslgError):  # a file that cannot be read is a finding of its own
            where = footprint(sample.image)
            self._places += [where] if where is not None else []
        if image is not None:
            self._hashes.append((name, duplicates.perceptual_hash(image)))

    def findings(self) -> Iterator[Finding]:
        for scene, names in self._scenes.items():
            if len(names) > 1:
                places = ", ".join(f"{split} ({name})" for split, name in sorted(names.items()))
                yield Finding("split-scene", scene, f"the scene is in {places}", next(iter(names.values())))
        for a, b in overlapping(self._places) if find_spec("shapely") else ():
            if len(self._splits[a] | self._splits[b]) > 1:
                splits = " and ".join(sorted(self._splits[a] | self._splits[b]))
                yield Finding("split-scene", f"{a}, {b}", f"the images show the same ground; they are in {splits}", a)
        for a, b, apart in duplicates.near_duplicates(self._hashes):
            straddle = len(self._splits[a] | self._splits[b]) > 1
            code = "split-duplicate" if straddle else "image-duplicate"
            splits = " and ".join(sorted(self._splits[a] | self._splits[b])) or "no split"
            yield Finding(code, f"{a}, {b}", f"the images differ in {apart} of 256 hash bits; in {splits}", a)
