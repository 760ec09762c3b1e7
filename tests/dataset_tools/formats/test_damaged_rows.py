"""Whatever stands at any place of an index: it is read, left out with a reason, or refused in a line; no traceback."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_tools import formats
from dataset_tools.checks.validate import validate
from dataset_tools.errors import DatasetError
from dataset_tools.formats import refer

CASES = Path(__file__).parents[2] / "data" / "cases"
JUNK: list[Any] = [None, -1, float("inf"), 10**30, "x", [], [[1, 2]], {"size": 1}]


def damaged(content: Any) -> Iterator[Any]:
    """``content`` with a junk value at every place in turn, and without it."""
    for path in list(_paths(content)):
        for junk in [*JUNK, ...]:
            copied = copy.deepcopy(content)
            home = copied
            for key in path[:-1]:
                home = home[key]
            if junk is ...:
                del home[path[-1]]
            else:
                home[path[-1]] = junk
            yield copied


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        if key not in ("tokens", "licenses"):
            yield (*path, key)
            yield from _paths(part, (*path, key))


def look(root: Path, name: str) -> None:
    try:
        for sample in formats.read(root, name, lambda _row: None):
            for record in sample.records:
                sample.area(record)
    except DatasetError:
        pass


def test_coco(tmp_path: Path) -> None:
    root = Path(shutil.copytree(CASES / "coco_iscrowd", tmp_path / "coco"))
    file = root / "annotations/instances_train.json"
    for number, content in enumerate(damaged(json.loads(file.read_text()))):
        file.write_text(json.dumps(content))
        look(root, "coco")
        if number % 100 == 0:
            validate(root, "coco", pixels=False)


def test_refer(tmp_path: Path) -> None:
    root = Path(shutil.copytree(CASES / "refer_without_sentences", tmp_path / "refer"))
    file, index = root / "rrsisd/refs(unc).p", root / "rrsisd/instances.json"
    refs, content = refer.load_refs(file), json.loads(index.read_text())
    for number, value in enumerate(damaged(refs)):
        file.write_bytes(pickle.dumps(value, 2))
        look(root, "refer")
        if number % 100 == 0:
            validate(root, "refer", pixels=False)
    file.write_bytes(pickle.dumps(refs, 2))
    for number, value in enumerate(damaged(content)):
        index.write_text(json.dumps(value))
        look(root, "refer")
        if number % 100 == 0:
            validate(root, "refer", pixels=False)


def test_a_name_that_no_file_can_have_is_a_line(tmp_path: Path) -> None:
    root = Path(shutil.copytree(CASES / "coco_iscrowd", tmp_path / "coco"))
    content = {
        "images": [{"id": 1, "file_name": "x" * 10_000, "width": 4, "height": 4}], "annotations": [], "categories": [],
    }  # fmt: skip
    (root / "annotations.json").write_text(json.dumps(content))
    (root / "expressions.jsonl").write_text("")
    with pytest.raises(DatasetError, match="File name too long"):
        list(formats.read(root, "coco_jsonl"))
