"""Where samples come from: a dataset folder, a Label Studio export, or a project; and splits dealt to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from dataset_tools import duplicates, formats, image_files, splits
from dataset_tools.categories import CATEGORIES
from dataset_tools.errors import DatasetError, PslgError
from dataset_tools.expressions.reading import WordsRead, reading_of
from dataset_tools.formats import coco_rows
from dataset_tools.formats.left_out import Report, refuse
from dataset_tools.label_studio import exports as label_studio
from dataset_tools.label_studio.accepted_words import NounsOfTasks
from dataset_tools.label_studio.import_rules import ImportRules, Problem
from dataset_tools.maps.footprints import Footprint, footprint, overlapping
from dataset_tools.records import Record, Sample, local_path
from dataset_tools.splits import SceneGroup

Samples: TypeAlias = Callable[[], Iterator[Sample]]
"""Starts over at every call."""


def open_source(
    path: Path, name: str | None, rules: ImportRules, problems: list[Problem], left_out: Report = refuse
) -> Samples:
    """Samples of a Label Studio export (a JSON file), a fetched project, a dataset folder, or a COCO file.

    Args:
        path: the file or folder.
        name: the format of a folder; None recognises it.
        rules: what to take from Label Studio tasks.
        problems: receives what was left out of tasks, once per pass.
        left_out: receives what was left out of a dataset, once per pass; by default the first such row is an error.

    Raises:
        DatasetError: nothing of the kind is there.
    """
    if path.is_file() and (name == "coco" or (name is None and formats.is_instances(path))):
        return lambda: coco_rows.read(path, left_out)
    if path.is_file() and path.suffix.lower() == ".json" and name is None:
        return _of_tasks(lambda: label_studio.read_tasks(path), rules, problems)
    if (path / "fetch.json").is_file():
        from dataset_tools.label_studio.fetch import fetched_tasks

        local = rules if rules.images else replace(rules, images=path / "images")
        return _of_tasks(lambda: fetched_tasks(path), local, problems)
    if not path.exists():
        raise DatasetError(f"{path} does not exist; give a dataset folder, or a JSON export of Label Studio")
    chosen = name or formats.detect(path)
    return lambda: formats.read(path, chosen, left_out)


def _of_tasks(tasks: Callable[[], Iterable[Mapping[str, Any]]], rules: ImportRules, problems: list[Problem]) -> Samples:
    """Samples of tasks, read with the nouns that their annotations teach."""

    learning = replace(rules, nouns=NounsOfTasks(tasks, rules))
    return lambda: label_studio.samples_of(tasks(), learning, problems)


def deal_splits(
    samples: Samples,
    *,
    shares: Mapping[str, float] = splits.RRSISM,
    seed: int = 0,
    known: Mapping[str, str] | None = None,
    keep: bool = False,
    look: bool = True,
    progress: Callable[[int], object] = lambda _n: None,
) -> dict[str, str]:
    """The split of every image, by scene: image file name -> part. Scenes that share ground on the map are one.

    Args:
        samples: all samples; read once.
        shares: part -> share.
        seed: of the dealing.
        known: splits of images that must not change (an earlier version of the dataset).
        keep: splits that records already have stay.
        look: read the images to join near-duplicates; False goes by scene names and by where they lie alone.
        progress: called with 1 after every image.

    Raises:
        DatasetError: one scene holds images of two known splits; the message names them; or where scenes overlap
            cannot be told without the extra ``geo``.
    """
    scene_of: dict[str, str | None] = {}
    strata: dict[str, Counter[str]] = {}
    fixed: dict[str, str] = dict(known or {})
    hashes: list[tuple[str, duplicates.Bits | None]] = []
    grounds: list[Footprint] = []
    for sample in samples():
        name = sample.image.file_name
        scene_of[name] = sample.image.cut_from
        place = _place(sample)
        if place is not None:
            grounds.append(place)
        pixels = sample.image.width * sample.image.height
        strata[name] = Counter(splits.stratum(r.category, sample.area(r) / pixels) for r in sample.records if r.targets)
        present = {split for split in sample.splits if split}
        if keep and len(present) == 1:
            fixed.setdefault(name, present.pop())
        if look:
            hashes.append((name, _hash(sample)))
        progress(1)
    same = [(a, b) for a, b, _ in duplicates.near_duplicates(hashes)] + overlapping(grounds)
    joined = duplicates.scenes_of(scene_of, scene_of.__getitem__, same)
    members: dict[str, list[str]] = {}
    for name, scene in joined.items():
        members.setdefault(scene, []).append(name)
    scenes = []
    for scene, names in members.items():
        where = {name: fixed[name] for name in names if name in fixed}
        if len(set(where.values())) > 1:
            places = ", ".join(f"{name} in {split}" for name, split in list(where.items())[:4])
            raise DatasetError(f"one scene is in two splits already: {places}; put them into one, or deal all anew")
        total: Counter[str] = Counter()
        for name in names:
            total.update(strata[name])
        scenes.append(SceneGroup(scene, total, next(iter(where.values()), None)))
    parts = splits.assign(scenes, shares, seed)
    return {name: parts[scene] for name, scene in joined.items()}


def with_splits(samples: Samples, parts: Mapping[str, str]) -> Samples:
    """The samples with every record in its image's part."""
    return lambda: (sample.with_split(parts[sample.image.file_name]) for sample in samples())


def known_splits(folder: Path) -> dict[str, str]:
    """Image file name -> split of a dataset, where all records of an image agree."""
    found: dict[str, str] = {}
    for sample in formats.read(folder, left_out=lambda _row: None):  # only the splits matter here
        present = {split for split in sample.splits if split}
        if len(present) == 1:
            found[sample.image.file_name] = present.pop()
    return found


def _place(sample: Sample) -> Footprint | None:
    try:
        return footprint(sample.image)
    except PslgError:
        return None  # the exporter reports images that cannot be read


def _hash(sample: Sample) -> duplicates.Bits | None:
    try:
        return duplicates.perceptual_hash(image_files.read(local_path(sample.image)))
    except (PslgError, OSError):
        return None  # the exporter reports images that cannot be read


def read_as(record: Record) -> WordsRead:
    """How a record's expression was read: as its provenance says, else as it is read now."""
    known = record.provenance
    if known.guessed or known.unread:
        return WordsRead(known.guessed or (), known.unread or ())
    return reading_of(
        record.expression, frozenset() if record.category in CATEGORIES else frozenset((record.category,))
    )


def read_fully(samples: Callable[[], Iterator[Sample]], left: dict[str, int]) -> Callable[[], Iterator[Sample]]:
    """``samples`` without the expressions of which a word was guessed or passed over; their objects stay without words.

    Args:
        samples: the source; every call starts it anew.
        left: receives the number of expressions taken out, by file name.
    """

    def fully() -> Iterator[Sample]:
        left.clear()
        for sample in samples():
            records = []
            for record in sample.records:
                if not record.expression or read_as(record).is_full:
                    records.append(record)
                    continue
                left[sample.image.file_name] = left.get(sample.image.file_name, 0) + 1
                if record.targets:
                    records.append(replace(record, expression=""))
            yield replace(sample, records=tuple(records))

    return fully
