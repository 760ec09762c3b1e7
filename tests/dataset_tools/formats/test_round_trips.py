"""Every format written, read back, and compared: masks exact, and nothing lost that the format can hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from dataset_tools import formats
from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from dataset_tools.masks import from_coco
from dataset_tools.records import Origin, Provenance, Record, Sample, SourceImage, Target, target_of

HEIGHT, WIDTH = 24, 31
WORDS = ["the ship", "the ship on the left", "the largest tennis court", "die Straße „links“", "all the vehicles"]


@st.composite
def records(draw: st.DrawFn) -> Record:
    masks = draw(st.lists(arrays(bool, (HEIGHT, WIDTH)), min_size=0, max_size=3))
    masks = [mask for mask in masks if mask.any()]
    origins: list[Origin] = ["prediction", "prediction-changed", "manual"]
    return Record(
        expression=draw(st.sampled_from(WORDS)) if masks else "the bridge",
        category=draw(st.sampled_from(["ship", "tenniscourt", "vehicle"])),
        targets=tuple(dict.fromkeys(target_of(mask) for mask in masks)),
        split=None,
        kind=draw(st.sampled_from([None, "single", "extreme"])) if masks else "absent",
        provenance=Provenance(
            source="label-studio", task=draw(st.integers(1, 99)), origin=draw(st.sampled_from(origins)), clicks=2
        ),
    )


@st.composite
def datasets(draw: st.DrawFn) -> list[Sample]:
    samples = []
    for number in range(draw(st.integers(1, 3))):
        split = draw(st.sampled_from(["train", "val", "test"]))
        found = draw(st.lists(records(), min_size=1, max_size=3))
        image = SourceImage(f"image-{number}.png", WIDTH, HEIGHT, scene=draw(st.sampled_from([None, "north"])))
        samples.append(Sample(image, tuple(replace(record, split=split) for record in found)))
    return samples


def located(samples: list[Sample], folder: Path) -> list[Sample]:
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        values = np.random.default_rng(len(sample.image.file_name)).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(values).save(folder / sample.image.file_name)
    return [replace(s, image=replace(s.image, location=str(folder / s.image.file_name))) for s in samples]


def facts(samples: list[Sample], name: str) -> Counter[tuple[Any, ...]]:
    """What a format can hold, as a multiset."""
    found: Counter[tuple[Any, ...]] = Counter()
    for sample in samples:
        image = sample.image.file_name if name != "refsegrs" else ""
        for record in sample.records:
            words = name != "coco"
            if words and not record.expression:
                continue
            if not record.targets and name != "coco_jsonl":
                continue
            entry: tuple[Any, ...] = (image, record.expression if words else "", record.split)
            if name != "refsegrs":
                entry += (record.category,)
            if name in ("coco_jsonl", "masks"):
                derived = "all" if name == "coco_jsonl" and len(record.targets) > 1 else None
                entry += (record.kind or derived, record.provenance)
            if name == "coco":  # objects once, whoever names them
                for target in record.targets:
                    found[(*entry, target.counts)] = 1
            elif name == "coco_jsonl":
                found[(*entry, tuple(target.counts for target in record.targets))] += 1
            else:
                found[(*entry, sample.merged(record))] += 1
    return found


@pytest.mark.parametrize("name", formats.READ)
@given(samples=datasets())
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(name: str, samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> None:
    if not any(record.targets for sample in samples for record in sample.records):
        return
    if name == "huggingface":
        pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp(name)
    source = located(samples, folder / "source")
    export(source, folder / "out", name)
    assert formats.detect(folder / "out") == name
    again = list(formats.read(folder / "out"))
    assert facts(again, name) == facts(source, name)
    for sample in again:
        pixels = np.asarray(Image.open(str(sample.image.location)))
        assert pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["refer", "masks", "coco_jsonl", "webdataset"])
def test_scene_and_holes_survive(name: str, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:20, 2:20] = True
    mask[8:12, 8:12] = False
    mask[0, 30] = True
    sample = Sample(SourceImage("a.png", WIDTH, HEIGHT, scene="s"), (Record("the ship", "ship", (target_of(mask),)),))
    export(located([sample], tmp_path / "in"), tmp_path / "out", name)
    (again,) = formats.read(tmp_path / "out")
    assert np.array_equal(again.union(again.records[0]), mask)
    assert name == "refer" or again.image.scene == "s"


def test_detect_names_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"rrsisd/refs\(unc\)\.p \(refer\)"):
        formats.detect(tmp_path)
    with pytest.raises(DatasetError, match="no format 'voc'; choose one of refer, coco"):
        formats.writer("voc")


def test_same_targets_become_one_ref_with_all_sentences(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:9, 4:9] = True
    target = target_of(mask)
    found = (Record("the ship", "ship", (target,)), Record("the only ship", "ship", (target,)))
    sample = Sample(SourceImage("a.png", WIDTH, HEIGHT), found)
    export(located([sample], tmp_path / "in"), tmp_path / "out", "refer", options={"grouped": True})
    (again,) = formats.read(tmp_path / "out", "refer")
    assert [record.expression for record in again.records] == ["the ship", "the only ship"]
    assert {record.targets[0].id for record in again.records} == {1}


def test_released_dialect_of_rrsisd_is_read(tmp_path: Path) -> None:
    """categories_id (sic), segmentation as dict, polygon or list: what other people's files hold."""
    import json
    import pickle

    code = {"size": [4, 5], "counts": target_of(np.eye(4, 5, dtype=bool)).counts}
    (tmp_path / "rrsisd").mkdir()
    refs = [
        {
            "ref_id": k, "ann_id": k, "image_id": k, "split": "test", "file_name": f"{k}.jpg", "sent_ids": [k],
            "sentences": [{"sent_id": k, "sent": "the Track Field", "raw": "the Track Field", "tokens": []}],
        }
        for k in range(3)
    ]  # fmt: skip
    (tmp_path / "rrsisd" / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    shapes: list[Any] = [[code], code, [[0, 0, 3, 0, 3, 3]]]
    instances = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 5, "height": 4} for k in range(3)],
        "annotations": [{"id": k, "image_id": k, "categories_id": 10, "segmentation": shapes[k]} for k in range(3)],
        "categories": [{"id": 10, "name": "groundtrackfield"}],
    }
    (tmp_path / "rrsisd" / "instances.json").write_text(json.dumps(instances))
    samples = list(formats.read(tmp_path))
    assert [s.records[0].category for s in samples] == ["groundtrackfield"] * 3
    assert all(np.array_equal(s.union(s.records[0]), np.eye(4, 5, dtype=bool)) for s in samples[:2])
    assert np.array_equal(samples[2].union(samples[2].records[0]), from_coco(shapes[2], 4, 5))


def test_pickle_with_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rrsisd").mkdir()
    marker = tmp_path / "executed"
    evil = b"cpathlib\nPath.touch\n(cpathlib\nPath\n(V" + str(marker).encode() + b"\ntRtR."
    (tmp_path / "rrsisd" / "refs(unc).p").write_bytes(evil)
    (tmp_path / "rrsisd" / "instances.json").write_text("{}")
    with pytest.raises(DatasetError, match="wants to load pathlib"):
        list(formats.read(tmp_path, "refer"))
    assert not marker.exists()


def test_sample_json_is_its_inverse() -> None:
    sample = Sample(SourceImage("a.png", 5, 4, extra={"crs": "EPSG:32633"}), (Record("x", "ship", (Target("5", 3),)),))
    assert Sample.from_json(sample.to_json()) == sample
    with pytest.raises(DatasetError, match="not a sample"):
        Sample.from_json({"image": {}})
