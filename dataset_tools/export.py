"""The exporter: a stream of samples becomes a dataset folder, in parallel, in flat memory, all or nothing.

Work goes to a staging folder beside the destination. Every finished sample is one line of its journal; started again
after an interruption, the exporter skips what the journal holds. Index files are streamed from the journal at the end,
then the folder is renamed into place. A sample that fails is reported and left out; the others are exported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any

from dataset_tools import formats, image_files
from dataset_tools.dataset_card import DatasetCard
from dataset_tools.errors import DatasetError, PslgError
from dataset_tools.formats import Format
from dataset_tools.formats.items import Contents, Item, Writer, image_split
from dataset_tools.formats.places import place_line, write_places
from dataset_tools.records import Sample, local_path

_JOURNAL = "journal.jsonl"
_WINDOW = 4
"""Samples in flight per worker."""


@dataclass
class ExportReport:
    """What an export did.

    Attributes:
        images: exported, those of an earlier, interrupted run included.
        records: exported expressions and objects without words.
        boxes: exported objects of which only a box is known.
        boxes_left: such objects that the format cannot hold.
        loss: what the format's own way to write an object lost, in words; None if nothing.
        without_target: expressions of absent objects that the format cannot hold.
        wordless: objects without words that the format cannot hold.
        resumed: images that an earlier run had exported.
        failed: (file name, why) of every image that could not be exported.
    """

    images: int = 0
    records: int = 0
    boxes: int = 0
    boxes_left: int = 0
    loss: str | None = None
    without_target: int = 0
    wordless: int = 0
    resumed: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def export(
    samples: Iterable[Sample],
    destination: Path,
    format_name: str,
    *,
    workers: int = 1,
    overwrite: bool = False,
    restart: bool = False,
    details: dict[str, Any] | None = None,
    options: Mapping[str, bool] | None = None,
    progress: Callable[[int], object] = lambda _n: None,
    reasons: Callable[[], Sequence[str]] = list,
) -> ExportReport:
    """Write ``samples`` as a dataset folder.

    Args:
        samples: the stream; taken lazily, a few samples at a time, always in the same order.
        destination: the folder to be made.
        format_name: a key of ``formats.FORMATS``.
        workers: processes that read, check and write images and masks; 1 works in this process.
        overwrite: replace an existing destination (only after everything is written).
        restart: forget an interrupted export instead of going on with it.
        details: JSON values for ``dataset.json`` (licence, source, command).
        options: of the format's writer, see ``formats.writer``.
        progress: called with 1 after every sample.
        reasons: what the source left out, as ``where: why``; asked at the end, for dataset.json and the card.

    Returns:
        What was exported and what failed.

    Raises:
        DatasetError: the destination exists, the staging folder belongs to another export, or nothing was exported.
        OSError: the index files cannot be written; what is staged stays for the next try.
    """
    options = dict(options or {})
    writer = formats.writer(format_name, **options)
    if destination.exists() and not overwrite:
        raise DatasetError(f"{destination} exists; choose another folder or pass --overwrite")
    staging = destination.with_name(f".{destination.name}.{format_name}.partial")
    if restart:
        shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, exist_ok=True)
    report = ExportReport()
    with ExitStack() as stack:
        journal = _Journal(staging / _JOURNAL, options)
        stack.callback(journal.close)
        run = _runner(format_name, options, writer, staging, workers, stack)
        waiting: deque[tuple[Item, Future[str | None]]] = deque()

        def settle(item: Item, error: str | None) -> None:
            if error is None:
                journal.append(item)
            else:
                report.failed.append((item.sample.image.file_name, error))
            progress(1)

        for item in _numbered(samples, writer, formats.FORMATS[format_name].stems):
            if journal.holds(item):
                report.resumed += 1
                progress(1)
                continue
            waiting.append((item, run(item)))
            while len(waiting) > workers * _WINDOW or (waiting and waiting[0][1].done()):
                first, future = waiting.popleft()
                settle(first, future.result())
        for first, future in waiting:
            settle(first, future.result())
    items = journal.items
    entry = formats.FORMATS[format_name]
    card, contents, found = DatasetCard(format_name), Contents(), 0
    places: list[str] = []
    for item in items():  # what the writer makes of it aside, the export is read once
        found += _count(report, item, entry)
        card.add(item.sample)
        contents.add(item.sample)
        if item.sample.image.place and not entry.renames:
            places.append(place_line(item, packed=entry.packed))
    if not report.images or (found and not report.records and not (entry.objects and report.without_target)):
        causes = [f"{name}: {why}" for name, why in report.failed] + list(reasons())
        more = f"; and {len(causes) - 3} more" if len(causes) > 3 else ""
        causes = causes or ["no expressions" if report.images else "no samples"]
        raise DatasetError(f"nothing was exported to {destination}: {'; '.join(causes[:3])}{more}")
    report.loss = writer.finish(staging, items, contents)
    if places:
        write_places(staging, places)
    named = {"name": destination.name, "boxes_without_mask": report.boxes, "boxes_left_behind": report.boxes_left}
    lost = {"loss": report.loss} if report.loss else {}
    left_out = [*report.failed, *map(_where_and_why, reasons())]
    card.write(staging, {**named, **lost, **(details or {})}, left_out)
    journal.path.unlink()
    _put_in_place(staging, destination)
    return report


def _where_and_why(reason: str) -> tuple[str, str]:
    where, _, why = reason.partition(": ")
    return where, why


def _count(report: ExportReport, item: Item, entry: Format) -> int:
    """Count what the format holds of ``item`` and what it does not; how many records there are."""
    records, boxes = item.sample.records, len(item.sample.boxes)
    report.images += not entry.words_only or any(r.expression and r.targets for r in records)
    report.without_target += 0 if entry.absent else sum(not record.targets for record in records)
    report.wordless += 0 if entry.objects else sum(len(r.targets) for r in records if not r.expression)
    report.records += sum(
        (entry.absent or bool(record.targets)) and (entry.objects or bool(record.expression)) for record in records
    )
    report.boxes += boxes if entry.boxes else 0
    report.boxes_left += 0 if entry.boxes else boxes
    return len(records)


def _numbered(samples: Iterable[Sample], writer: Writer, stems: bool) -> Iterator[Item]:
    first, taken = 1, set()

    def key(path: str) -> str:
        return str(PurePosixPath(path).with_suffix("")) if stems else path

    for number, sample in enumerate(samples, start=1):
        name = str(PurePosixPath(sample.image.file_name).with_suffix(image_files.suffix_for(sample.image.file_name)))
        split = image_split(sample)
        path = writer.image_path(number, name, split)
        if key(path) in taken:  # two sources may use one name, and changing a suffix may make one
            path = writer.image_path(number, f"{number}_{name.replace('/', '_')}", split)
        taken.add(key(path))
        yield Item(number, first, sample, path)
        first += max(1, len(sample.records))


def _runner(
    format_name: str, options: Mapping[str, bool], writer: Writer, staging: Path, workers: int, stack: ExitStack
) -> Callable[[Item], Future[str | None]]:
    if workers <= 1:

        def here(item: Item) -> Future[str | None]:
            future: Future[str | None] = Future()
            future.set_result(_write_sample(writer, staging, item))
            return future

        return here
    # Forking a process that has threads (OpenCV, a progress bar) can deadlock.
    pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
    return lambda item: pool.submit(_write_in_worker, format_name, options, staging, item)


def _write_in_worker(format_name: str, options: Mapping[str, bool], staging: Path, item: Item) -> str | None:
    return _write_sample(formats.writer(format_name, **options), staging, item)


def _write_sample(writer: Writer, staging: Path, item: Item) -> str | None:
    """Write the image and the per-sample files; returns None, or why it failed."""
    written: list[Path] = []
    try:
        image = item.sample.image
        suffix = PurePosixPath(item.image_path).suffix
        content = image_files.as_rgb_file(local_path(image), suffix, (image.width, image.height))
        for relative, data in [(item.image_path, content), *writer.files(item)]:
            path = staging / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            written.append(path)
            path.write_bytes(data)
    except (PslgError, OSError) as error:
        for path in written:
            path.unlink(missing_ok=True)
        return str(error)
    return None


class _Journal:
    """The finished samples of a staging folder: one JSON line each, appended as they finish."""

    def __init__(self, path: Path, options: Mapping[str, bool]) -> None:
        self.path = path
        self._options = dict(options)
        self._done: dict[int, bytes] = {}
        end = 0
        if path.is_file():
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # the line that was being written when the export was interrupted
                    entry = json.loads(line)
                    self._done[entry["number"]] = bytes.fromhex(entry["digest"])
                    end += len(line)
        self._file = path.open("r+b" if path.is_file() else "w+b")
        self._file.truncate(end)
        self._file.seek(end)

    def holds(self, item: Item) -> bool:
        """Whether the item was finished before.

        Raises:
            DatasetError: the journal holds another sample under its number.
        """
        digest = self._done.get(item.number)
        if digest is not None and digest != _digest(item, self._options):
            raise DatasetError(
                f"{self.path.parent} holds an interrupted export of other samples (image {item.number} differs); "
                "pass --restart to throw it away"
            )
        return digest is not None

    def append(self, item: Item) -> None:
        entry = {
            "number": item.number, "first": item.first, "image_path": item.image_path,
            "digest": _digest(item, self._options).hex(), "sample": item.sample.to_json(),
        }  # fmt: skip
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def items(self) -> Iterator[Item]:
        """All finished items in the order of their numbers."""
        with self.path.open("rb") as file:
            for line in file:
                entry = json.loads(line)
                yield Item(entry["number"], entry["first"], Sample.from_json(entry["sample"]), entry["image_path"])

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _digest(item: Item, options: Mapping[str, bool]) -> bytes:
    # Where the pixels are may change between two runs (a temporary folder); what they are must not.
    sample = replace(item.sample, image=replace(item.sample.image, location=None))
    return hashlib.blake2b(json.dumps([item.image_path, sample.to_json(), options]).encode(), digest_size=8).digest()


def _put_in_place(staging: Path, destination: Path) -> None:
    old = destination.with_name(f".{destination.name}.old")
    if destination.exists():
        shutil.rmtree(old, ignore_errors=True)
        destination.rename(old)
    staging.rename(destination)
    shutil.rmtree(old, ignore_errors=True)
