"""Files that are wrong in ways nobody thought of: a reader leaves rows out or says why, and no traceback ends it."""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_tools import formats
from dataset_tools.checks.report import as_json, as_text
from dataset_tools.checks.validate import fixed, validate
from dataset_tools.errors import PslgError
from dataset_tools.export import export
from dataset_tools.formats.refer import load_refs
from dataset_tools.label_studio.exports import samples_of
from dataset_tools.label_studio.import_rules import ImportRules
from tests.conftest import REPOSITORY

CASES = REPOSITORY / "tests/data/cases"
ODD: list[Any] = [
    None, True, 0, -1, 1.5, math.inf, -math.inf, math.nan, 10**30, "", "x", "1", "1.0", "\u00e9\0", "../../etc/passwd",
    [], {}, [[]], [None], [1], ["a"], {"a": 1}, {"size": [48, 64], "counts": "0"}, {"size": [1, 2]}, [{}],
    [[1, 2, 3, 4, 5, 6]], [[1, 2], [3, 4], [5, 6]],
]  # fmt: skip
RULES = ImportRules(images=CASES / "uploads")
COCO = ("coco_box_only", "coco_iscrowd", "coco_id_as_text", "coco_polygon_of_4_numbers", "label_studio_coco_export")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested JSON; of long lists only the first entries."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def mutated(value: Any, chance: random.Random) -> Any:
    """A copy in which one to three values are missing, doubled, or something odd."""
    changed = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 2, 3))):
        *path, last = chance.choice(list(places(changed)) or [(None,)])
        if last is None:
            break
        holder = changed
        for key in path:
            holder = holder[key]
        what = chance.random()
        if what < 0.2:
            del holder[last]
        elif what < 0.3 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        else:
            holder[last] = copy.deepcopy(chance.choice(ODD))
    return changed


def look(root: Path, name: str) -> None:
    """All that ``pslg dataset validate --fix`` does, short of writing; only a PslgError may end it."""
    report = validate(root, name)
    assert as_text(report)
    assert as_json(report)
    try:
        list(fixed(formats.read(root, name, lambda _row: None)))
    except PslgError:
        assert report.errors


def rewritten(file: Path) -> Callable[[random.Random], None]:
    """What writes mutations of a JSON or JSON-lines file in its place."""
    text = file.read_text()
    if file.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        return lambda chance: write(file, "\n".join(json.dumps(row) for row in mutated(rows, chance)))
    content = json.loads(text)
    return lambda chance: write(file, json.dumps(mutated(content, chance)))


def write(file: Path, text: str) -> None:
    file.write_text(text)


@pytest.mark.parametrize("case", COCO)
def test_coco_files(case: str, tmp_path: Path) -> None:
    root = tmp_path / case
    shutil.copytree(CASES / case, root)
    (file,) = root.rglob("*.json")
    change = rewritten(file)
    for seed in range(40):
        change(random.Random(seed))
        look(root, "coco")


@pytest.mark.parametrize("name", ["coco_jsonl", "masks", "rsrefseg"])
def test_files_of_other_formats(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    found = list(samples_of(json.loads((CASES / "one_image_two_tasks.json").read_text()), RULES, []))
    export([sample.with_split("train") for sample in found], root, name)
    for file in sorted({*root.rglob("*.jsonl"), *root.glob("annotations.json"), *root.glob("split.json")}):
        text, change = file.read_text(), rewritten(file)
        for seed in range(20):
            change(random.Random(seed))
            look(root, name)
        file.write_text(text)


def test_refer_files(tmp_path: Path) -> None:
    root = tmp_path / "refer"
    shutil.copytree(CASES / "refer_empty_expression", root)
    pickled, file = root / "rrsisd/refs(unc).p", root / "rrsisd/instances.json"
    refs, text, change = load_refs(pickled), file.read_text(), rewritten(file)
    for seed in range(60):
        change(random.Random(seed))
        look(root, "refer")
    file.write_text(text)
    for seed in range(60):
        pickled.write_bytes(pickle.dumps(mutated(refs, random.Random(seed)), protocol=2))
        look(root, "refer")


def test_tasks_of_label_studio() -> None:
    contents = [json.loads(file.read_text()) for file in sorted(CASES.glob("*.json"))]
    lists = [content for content in contents if isinstance(content, list)]
    tasks = [task for content in lists for task in content if "annotations" in task]
    for seed in range(400):
        chance = random.Random(seed)
        task = mutated(chance.choice(tasks), chance)
        rules = replace(RULES, annotators=chance.choice(("all", "agreement", "ground-truth")))
        if isinstance(task.get("data"), dict):  # else it is no task: reading the file says so
            list(samples_of([task], rules, []))
