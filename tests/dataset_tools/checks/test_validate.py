"""The validator: every mistake of the list is found in a dataset that has it, and a sound dataset has none."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset_tools import formats, synthetic
from dataset_tools.checks.findings import CODES
from dataset_tools.checks.validate import fixed, validate
from dataset_tools.export import export
from dataset_tools.formats import refer

SEEDS = (3, 4, 8, 12)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validate")
    scenes = [synthetic.draw_scene(seed, 420, 400) for seed in SEEDS]
    synthetic.write(folder / "coco_jsonl", scenes, split=(0.5, 0.25, 0.25))
    samples = list(formats.read(folder / "coco_jsonl"))
    single = [replace(s, records=tuple(r for r in s.records if r.expression and r.targets)) for s in samples]
    export(single, folder / "refer", "refer")
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Callable[[str], Path]:
    import shutil

    return lambda name: Path(shutil.copytree(pristine / name, tmp_path / name))


def codes(root: Path, **options: Any) -> set[str]:
    return {finding.code for finding in validate(root, **options).findings}


def test_sound_datasets_have_no_errors(pristine: Path) -> None:
    for name in ("coco_jsonl", "refer"):
        report = validate(pristine / name)
        assert (report.images, report.errors) == (len(SEEDS), 0), report.findings
        assert report.records > 20


def change_json(file: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        content = json.loads((root / file).read_text())
        change(content)
        (root / file).write_text(json.dumps(content))

    return apply


def change_line(change: Callable[[dict[str, Any]], object], which: int = 0) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        lines = [json.loads(line) for line in (root / "expressions.jsonl").read_text().splitlines()]
        change([line for line in lines if line["kind"] != "absent"][which])
        (root / "expressions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    return apply


def add_line(**changes: Any) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        lines = [json.loads(line) for line in (root / "expressions.jsonl").read_text().splitlines()]
        base = next(line for line in lines if line["kind"] != "absent" and len(line["ann_ids"]) == 1)
        annotations = json.loads((root / "annotations.json").read_text())["annotations"]
        others = [a["id"] for a in annotations if a["image_id"] == 1 and a["id"] not in base["ann_ids"]]
        extra = {**base, "id": 10_000, **{k: v(base, others) if callable(v) else v for k, v in changes.items()}}
        with (root / "expressions.jsonl").open("a") as file:
            file.write(json.dumps(extra) + "\n")

    return apply


def convert(mode: str) -> Callable[[Path], object]:
    return lambda root: Image.open(root / "images/00001.png").convert(mode).save(root / "images/00001.png")


def copy_image(root: Path) -> None:
    image = Image.open(root / "images/00001.png")
    image.resize((300, 280)).resize((420, 400)).save(root / "images/00004.png")


BROKEN: list[tuple[str, Callable[[Path], object]]] = [
    ("image-mode", convert("L")),
    ("image-mode", convert("RGBA")),
    ("image-size", lambda root: Image.new("RGB", (420, 401)).save(root / "images/00001.png")),
    ("image-unreadable", lambda root: (root / "images/00001.png").write_bytes(b"\x89PNG....")),
    ("split-duplicate", copy_image),
    ("split-scene", change_json("annotations.json", lambda c: [i.update(scene="one") for i in c["images"]])),
    ("split-unknown", change_json("split.json", lambda c: c.update(holdout=c.pop("val")))),
    ("split-missing", lambda root: (root / "split.json").unlink()),
    ("mask-empty", change_json("annotations.json", lambda c: c["annotations"][0].update(segmentation=[]))),
    ("mask-outside", change_json("annotations.json", lambda c: c["annotations"][0].update(
        segmentation=[[5, 5, 900, 5, 900, 50]]))),
    ("unreadable", change_json("annotations.json", lambda c: c["annotations"][0]["segmentation"].update(counts="zz"))),
    ("expression-empty", change_line(lambda line: line.update(expression="  "))),
    ("expression-spaces", change_line(lambda line: line.update(expression=line["expression"] + " "))),
    ("expression-long", change_line(lambda line: line.update(expression="the " + "very " * 20 + "red ship"))),
    ("expression-repeated", add_line()),
    ("expression-two-targets", add_line(ann_ids=lambda _base, others: others[:1])),
    ("expression-two-targets", add_line(ann_ids=[], kind="absent")),
    ("category-mismatch", change_line(lambda line: line.update(expression="the windmill"))),
    ("category-unknown", change_line(lambda line: line.update(category="spaceport"))),
]  # fmt: skip


@pytest.mark.parametrize(("code", "breaking"), BROKEN, ids=[f"{code}-{k}" for k, (code, _) in enumerate(BROKEN)])
def test_a_mistake_is_found(folder: Callable[[str], Path], code: str, breaking: Callable[[Path], object]) -> None:
    root = folder("coco_jsonl")
    pixels = code.startswith("image-") or code == "split-duplicate"
    assert code not in codes(root, pixels=pixels)
    breaking(root)
    assert code in codes(root, pixels=pixels)


def change_refs(change: Callable[[list[dict[str, Any]]], object], protocol: int = 2) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        refs = refer.load_refs(root / "rrsisd/refs(unc).p")
        change(refs)
        (root / "rrsisd/refs(unc).p").write_bytes(pickle.dumps(refs, protocol))

    return apply


def overlap(content: dict[str, Any]) -> None:
    annotation = content["annotations"][0]
    annotation["segmentation"] = annotation["segmentation"] * 2


REFER: list[tuple[str, Callable[[Path], object]]] = [
    ("refer-protocol", change_refs(lambda _refs: None, protocol=5)),
    ("refer-id", change_refs(lambda refs: refs[0].update(image_id=str(refs[0]["image_id"])))),
    ("refer-duplicate-id", change_refs(lambda refs: refs.append(refs[0]))),
    ("refer-sentences", change_refs(lambda refs: refs[0]["sent_ids"].append(9999))),
    ("refer-sentences", change_refs(lambda refs: refs[0].update(sentences=[]))),
    ("refer-overlap", change_json("rrsisd/instances.json", overlap)),
    ("refer-segmentation", change_json("rrsisd/instances.json", lambda c: c["annotations"][0].update(
        segmentation=c["annotations"][0]["segmentation"][0]))),
]  # fmt: skip


@pytest.mark.parametrize(("code", "breaking"), REFER, ids=[f"{code}-{k}" for k, (code, _) in enumerate(REFER)])
def test_a_mistake_in_refer_files_is_found_and_fixed(
    folder: Callable[[str], Path], tmp_path: Path, code: str, breaking: Callable[[Path], object]
) -> None:
    root = folder("refer")
    breaking(root)
    assert code in codes(root, pixels=False)
    export(fixed(formats.read(root, left_out=lambda _row: None)), tmp_path / "fixed", "refer")
    assert CODES[code].automatic
    assert code not in codes(tmp_path / "fixed", pixels=False)


def test_ambiguous_words_and_words_for_another_object_are_found(tmp_path: Path) -> None:
    """Two equal tanks: "the storage tank" fits both, "the storage tank on the right" fits the other one."""
    from dataset_tools.records import Record, Sample, SourceImage, target_of

    left, right = np.zeros((2, 200, 300), bool)
    left[90:110, 30:50] = True
    right[90:110, 250:270] = True
    records = tuple(
        Record(words, "storagetank", (target_of(mask),), "train")
        for words, mask in [
            ("the storage tank", left),
            ("the storage tank on the right", left),
            ("the storage tank on the left", left),
            ("the rightmost storage tank", right),
        ]
    )
    Image.new("RGB", (300, 200), (90, 120, 70)).save(tmp_path / "a.png")
    sample = Sample(SourceImage("a.png", 300, 200, str(tmp_path / "a.png")), records)
    export([sample], tmp_path / "out", "coco_jsonl")
    found = {(finding.code, finding.record) for finding in validate(tmp_path / "out").findings}
    assert ("expression-ambiguous", 0) in found
    assert ("expression-other", 1) in found
    assert not {record for code, record in found if code.startswith("expression")} & {2, 3}


def test_box_masks_are_found(tmp_path: Path) -> None:
    from dataset_tools.records import Record, Sample, SourceImage, target_of

    mask = np.zeros((200, 300), bool)
    mask[50:90, 60:120] = True
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    records = (
        Record("the airplane", "airplane", (target_of(mask),)),
        Record("the building", "building", (target_of(mask),)),
    )
    export([Sample(SourceImage("a.png", 300, 200, str(tmp_path / "a.png")), records)], tmp_path / "out", "masks")
    boxed = [f.record for f in validate(tmp_path / "out").findings if f.code == "mask-box"]
    assert boxed == [0]


def test_fixing_trims_and_drops(folder: Callable[[str], Path], tmp_path: Path) -> None:
    root = folder("coco_jsonl")
    for code, breaking in BROKEN:
        if code in ("expression-spaces", "expression-repeated", "mask-empty", "expression-empty"):
            breaking(root)
    convert("L")(root)
    before = codes(root)
    assert {"expression-repeated", "mask-empty", "image-mode"} <= before
    report = export(fixed(formats.read(root)), tmp_path / "fixed", "coco_jsonl")
    assert report.failed == []
    assert not {code for code in codes(tmp_path / "fixed") if CODES[code].automatic}


def test_every_code_is_explained_in_full_sentences() -> None:
    assert all(code.why.endswith(".") and code.fix.endswith(".") for code in CODES.values())


def test_research_images_have_the_known_problems_only(shared_data: Path) -> None:
    found = validate(shared_data / "nwpu_vhr10", pixels=False)
    assert found.records == 2341
    assert {f.code for f in found.findings if f.severity == "error"} <= {"expression-two-targets"}
