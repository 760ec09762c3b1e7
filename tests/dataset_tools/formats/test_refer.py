"""REFER roots: one sentence per ref by default, and what somebody else's refs hold is read or named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset_tools import formats
from dataset_tools.checks.validate import validate
from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from dataset_tools.formats import refer
from dataset_tools.formats.left_out import LeftOut
from dataset_tools.records import Record, Sample, SourceImage, target_of

CASES = Path(__file__).parents[2] / "data" / "cases"


def read(root: Path) -> tuple[list[str], list[LeftOut]]:
    left_out: list[LeftOut] = []
    samples = list(formats.read(root, "refer", left_out.append))
    return [record.expression for sample in samples for record in sample.records], left_out


def errors(root: Path) -> list[tuple[str, str]]:
    return [(f.code, f.where) for f in validate(root).findings if f.severity == "error"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three refs about two objects of one image."""
    left, right = np.zeros((2, 48, 64), bool)
    left[5:20, 5:20], right[5:20, 30:50] = True, True
    Image.new("RGB", (64, 48), (40, 90, 120)).save(tmp_path / "a.png")
    records = (
        Record("the left ship", "ship", (target_of(left),), "train"),
        Record("the smaller ship", "ship", (target_of(left),), "train"),
        Record("the right ship", "ship", (target_of(right),), "train"),
    )
    sample = Sample(SourceImage("a.png", 64, 48, str(tmp_path / "a.png")), records)
    export([sample], tmp_path / "single", "refer")
    export([sample], tmp_path / "grouped", "refer", options={"grouped": True})
    return tmp_path


def test_one_sentence_per_ref_unless_grouped(root: Path) -> None:
    refs = refer.load_refs(root / "single/rrsisd/refs(unc).p")
    assert [len(ref["sentences"]) for ref in refs] == [1, 1, 1]
    assert all(
        ref["ref_id"] == ref["ann_id"] == ref["image_id"] == ref["sent_ids"][0] == ref["sentences"][0]["sent_id"]
        for ref in refs
    )
    assert len(list((root / "single/ann_split").iterdir())) == 3
    grouped = refer.load_refs(root / "grouped/rrsisd/refs(unc).p")
    assert [len(ref["sentences"]) for ref in grouped] == [2, 1]
    assert sorted(read(root / "single")[0]) == sorted(read(root / "grouped")[0])
    assert "refer-grouped" not in {finding.code for finding in validate(root / "single").findings}
    assert "refer-grouped" in {finding.code for finding in validate(root / "grouped").findings}


def test_category_ids_are_rrsisds_in_refer_and_from_1_in_coco(root: Path) -> None:
    refer = json.loads((root / "single/rrsisd/instances.json").read_text())["categories"]
    coco = json.loads((root / "single/coco/instances_train.json").read_text())["categories"]
    assert [entry["id"] for entry in refer][:20] == list(range(20))
    assert [(entry["id"] - 1, entry["name"]) for entry in coco] == [(entry["id"], entry["name"]) for entry in refer]


def test_a_ref_without_sentences_is_named() -> None:
    words, left_out = read(CASES / "refer_without_sentences")
    assert (words, [(row.where, row.code) for row in left_out]) == (["the ship"], [("ref 2", "refer-sentences")])
    assert errors(CASES / "refer_without_sentences") == [("refer-sentences", "ref 2")]


def test_an_empty_expression_is_named() -> None:
    words, left_out = read(CASES / "refer_empty_expression")
    assert (words, [(row.where, row.code) for row in left_out]) == (["the ship"], [("ref 2", "expression-empty")])
    assert errors(CASES / "refer_empty_expression") == [("expression-empty", "ref 2")]


def changed(root: Path, change: Callable[[list[Any]], object]) -> Path:
    file = root / "single/rrsisd/refs(unc).p"
    refs = refer.load_refs(file)
    change(refs)
    file.write_bytes(pickle.dumps(refs, 2))
    return root / "single"


@pytest.mark.parametrize(
    "change",
    [
        lambda refs: refs[0].pop("sentences"),
        lambda refs: refs[0].update(sentences=None),
        lambda refs: refs[0].update(sentences=7),
        lambda refs: refs[0].update(sentences=[{"sent_id": 1}]),
        lambda refs: refs[0].update(sentences=[{"raw": None, "sent": 3}]),
        lambda refs: refs[0].update(ann_id=[1, 99]),
        lambda refs: refs[0].update(ann_id={}),
        lambda refs: refs[0].update(image_id=None),
        lambda refs: refs[0].update(category_id=[1]),
        lambda refs: refs[0].pop("ann_id"),
        lambda refs: refs.__setitem__(0, "ref"),
    ],
)
def test_an_unusable_ref_is_named_and_the_others_are_read(root: Path, change: Callable[[list[Any]], object]) -> None:
    folder = changed(root, change)
    words, left_out = read(folder)
    assert (words, len(left_out)) == (["the smaller ship", "the right ship"], 1)
    assert errors(folder)
    with pytest.raises(DatasetError):
        list(formats.read(folder))


def test_a_list_of_annotations_names_them_all(root: Path) -> None:
    folder = changed(root, lambda refs: refs[0].update(ann_id=[1, 3]))
    (sample,) = formats.read(folder)
    assert [len(record.targets) for record in sample.records] == [2, 1, 1]
    assert sample.area(sample.records[0]) == 15 * 15 + 15 * 20


def test_numpy_ids_are_called_by_name(root: Path) -> None:
    folder = changed(root, lambda refs: refs[0].update(ref_id=np.int64(1)))
    with pytest.raises(DatasetError, match=r"numpy values .*write int\(id\)"):
        list(formats.read(folder))
    assert [code for code, _ in errors(folder)] == ["unreadable", "unreadable"]


@pytest.mark.parametrize("content", [{}, "refs", None, 3])
def test_a_pickle_that_holds_no_list_is_said(root: Path, content: object) -> None:
    (root / "single/rrsisd/refs(unc).p").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(DatasetError, match="must hold a list of refs"):
        list(formats.read(root / "single"))
    assert errors(root / "single")
