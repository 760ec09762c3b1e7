"""Exports as the public loaders read them: an independent mini-reader always, the real ones where a checkout is named.

PSLG_RMSIN=/path/to/RMSIN PSLG_FIANET=/path/to/FIANet pytest tests/dataset_tools/test_loaders.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_tools import formats, synthetic
from dataset_tools.export import export
from dataset_tools.masks import from_coco
from dataset_tools.records import Sample
from tests.dataset_tools.mini_refer import MiniRefer

# Warnings are errors here, but the loaders' own are not ours: they use what numpy has deprecated and leave files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_STAND_IN = """
import json, os, pickle, warnings
import numpy as np
from pycocotools import mask


class REFER:
    def __init__(self, data_root, dataset, splitBy):
        folder = os.path.join(data_root, dataset)
        refs = pickle.load(open(os.path.join(folder, "refs(" + splitBy + ").p"), "rb"))
        instances = json.load(open(os.path.join(folder, "instances.json")))
        self.Refs = {ref["ref_id"]: ref for ref in refs}
        self.Anns = {ann["id"]: ann for ann in instances["annotations"]}
        self.Imgs = {image["id"]: image for image in instances["images"]}

    def getRefIds(self, split):
        warnings.warn("`in1d` is deprecated. Use `np.isin` instead.", DeprecationWarning)
        return [ref_id for ref_id, ref in self.Refs.items() if ref["split"] == split]

    def getMask(self, ref):
        ann = self.Anns[ref["ann_id"]]
        image = self.Imgs[ref["ref_id"]]
        rle = [dict(code, counts=code["counts"].encode()) for code in ann["segmentation"]]
        decoded = np.sum(mask.decode(rle), axis=2)
        assert decoded.shape == (image["height"], image["width"])
        return {"mask": decoded.astype(np.uint8)}
"""
"""Like the field's ``refer.py`` in what warns: an open file that nobody closes, and a deprecated name of numpy."""


@pytest.mark.filterwarnings("ignore")  # of datasets and what it imports
def test_datasets_reads_the_folder_by_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_HUB_OFFLINE",
        "HF_DATASETS_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "HF_DATASETS_DISABLE_PROGRESS_BARS",
    ):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", reason="needs datasets (extra dev)")
    scenes = synthetic.write(tmp_path / "scenes", (synthetic.draw_scene(seed, 160, 128) for seed in range(3)))
    parts = ("train", "train", "test")
    samples = [sample.with_split(part) for sample, part in zip(formats.read(scenes), parts, strict=True)]
    export(samples, tmp_path / "out", "huggingface")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in found.items()} == {"train": 2, "test": 1}
    for rows, taken in ((found["train"], samples[:2]), (found["test"], samples[2:])):
        for row, sample in zip(rows, taken, strict=True):
            assert (row["image"].mode, row["image"].size) == ("RGB", (160, 128))
            said = {r.expression: sample.union(r) for r in sample.records if r.expression and r.targets}
            read = {text: from_coco(ref["mask"], 128, 160) for ref in row["refs"] for text in ref["sentences"]}
            assert read.keys() == said.keys()
            assert all(np.array_equal(read[text], said[text]) for text in said)
            assert all(len(ref["kinds"]) == len(ref["sentences"]) == len(ref["provenances"]) for ref in row["refs"])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("scenes")
    synthetic.write(folder, [synthetic.draw_scene(k, 320, 300) for k in range(8)], split=(0.5, 0.25, 0.25))
    samples = formats.read(folder)
    return [replace(s, records=tuple(r for r in s.records if r.expression and r.targets)) for s in samples]


@pytest.fixture(scope="module")
def root(scenes: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refer") / "out"
    export(scenes, folder, "refer")
    return folder


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_mini_reader_sees_every_expression_with_its_exact_mask(root: Path, scenes: list[Sample], split: str) -> None:
    expected = sorted(
        (record.expression, sample.union(record).tobytes())
        for sample in scenes
        for record in sample.records
        if record.split == split
    )
    found = MiniRefer(root).items(split)
    assert sorted((text, target.astype(bool).tobytes()) for _, target, texts in found for text in texts) == expected
    assert expected


def test_pickle_is_protocol_2_of_builtins_and_ids_are_equal(root: Path) -> None:
    index = MiniRefer(root)
    assert index.protocol_header == b"\x80\x02"
    assert all(ref["ref_id"] == ref["ann_id"] == ref["image_id"] for ref in index.refs.values())
    assert all(len(ref["sent_ids"]) == len(ref["sentences"]) > 0 for ref in index.refs.values())
    for ann in index.anns.values():
        x0, y0, x1, y1 = ann["bbox"]
        rows, columns = np.nonzero(index.get_mask(ann["id"]))
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert ann["area"] == len(rows)
        assert ann["category_id"] == ann["categories_id"]


def test_pycocotools_reads_strict_coco(root: Path, scenes: list[Sample]) -> None:
    from pycocotools.coco import COCO

    for split in ("train", "val", "test"):
        coco = COCO(str(root / "coco" / f"instances_{split}.json"))
        assert coco.getImgIds()
        for annotation in coco.loadAnns(coco.getAnnIds()):
            mask = coco.annToMask(annotation)
            x, y, width, height = annotation["bbox"]
            assert mask.sum() == annotation["area"]
            assert mask[int(y) : int(y + height), int(x) : int(x + width)].sum() == mask.sum()
    objects = {(s.image.file_name, t.counts) for s in scenes for r in s.records for t in r.targets}
    files = [json.loads(path.read_text()) for path in (root / "coco").glob("*.json")]
    assert sum(len(file["annotations"]) for file in files) == len(objects)


def test_supervision_reads_strict_coco(root: Path) -> None:
    supervision = pytest.importorskip("supervision", reason="pip install supervision to run this")
    data = supervision.DetectionDataset.from_coco(
        str(root / "images/rrsisd/JPEGImages"), str(root / "coco/instances_train.json"), force_masks=True
    )
    assert len(data) > 0
    assert sum(int(detections.mask.sum()) for _, _, detections in data) > 0


@pytest.mark.parametrize("variable", ["stand-in", "PSLG_RMSIN", "PSLG_FIANET"])
def test_refer_module_reads_it(root: Path, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The checkout's own refer.py (or a stand-in that warns as they do): its index, its masks."""
    if variable == "stand-in":
        (tmp_path / "refer").mkdir()
        (tmp_path / "refer" / "refer.py").write_text(_STAND_IN)
    elif variable not in os.environ:
        pytest.skip(f"set {variable} to a checkout of the repository")
    file = Path(os.environ.get(variable, tmp_path)) / "refer" / "refer.py"
    monkeypatch.setattr(sys, "path", [str(file.parent), *sys.path])
    spec = importlib.util.spec_from_file_location(f"refer_of_{variable.lower().replace('-', '_')}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    theirs, ours = module.REFER(str(root), "rrsisd", "unc"), MiniRefer(root)
    for split in ("train", "val", "test"):
        ids = theirs.getRefIds(split=split)
        assert sorted(ids) == sorted(ours.ref_ids(split))
        for ref_id in ids:
            mask = theirs.getMask(theirs.Refs[ref_id])["mask"]
            assert np.array_equal(mask, ours.get_mask(ref_id))
