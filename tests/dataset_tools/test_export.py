"""The exporter: whole or not at all, goes on after an interruption, leaves out what fails and says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from dataset_tools import formats
from dataset_tools.cli import dataset
from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from dataset_tools.records import Provenance, Record, Sample, SourceImage, target_of


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    made = []
    (tmp_path / "in").mkdir()
    for number in range(10):
        path = tmp_path / "in" / f"{number}.png"
        Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(path)
        mask = np.zeros((20, 30), bool)
        mask[number : number + 5, 3:9] = True
        record = Record(f"the ship number {number}", "ship", (target_of(mask),), "train")
        made.append(Sample(SourceImage(path.name, 30, 20, str(path)), (record,)))
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "dataset.json" and path.name != "README.md"
    }


@pytest.mark.parametrize("name", ["refer", "refsegrs", "masks", "webdataset"])
def test_an_interrupted_export_goes_on_and_gives_the_same_files(
    samples: list[Sample], tmp_path: Path, name: str
) -> None:
    export(samples, tmp_path / "whole", name)

    def until_interrupted() -> Iterator[Sample]:
        yield from samples[:6]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(until_interrupted(), tmp_path / "out", name)
    assert not (tmp_path / "out").exists()
    seen: list[int] = []
    report = export(samples, tmp_path / "out", name, progress=seen.append)
    assert report.resumed >= 5
    assert (report.images, sum(seen)) == (10, 10)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_line_cut_off_in_the_journal_is_done_again(samples: list[Sample], tmp_path: Path) -> None:
    def until_interrupted() -> Iterator[Sample]:
        yield from samples[:6]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(until_interrupted(), tmp_path / "out", "masks")
    journal = tmp_path / ".out.masks.partial" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    report = export(samples, tmp_path / "out", "masks")
    assert (report.images, report.resumed) == (10, 5)


def test_an_interrupted_export_of_other_samples_is_not_mixed_in(samples: list[Sample], tmp_path: Path) -> None:
    def until_interrupted() -> Iterator[Sample]:
        yield from samples[:6]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(until_interrupted(), tmp_path / "out", "masks")
    others = samples[::-1]
    with pytest.raises(DatasetError, match=r"other samples .*--restart"):
        export(others, tmp_path / "out", "masks")
    assert export(others, tmp_path / "out", "masks", restart=True).resumed == 0


def test_what_fails_is_left_out_and_reported(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "in" / "2.png").unlink()
    (tmp_path / "in" / "3.png").write_bytes(b"no image")
    Image.new("RGB", (31, 20)).save(tmp_path / "in" / "4.png")
    truncated = (tmp_path / "in" / "5.png").read_bytes()
    (tmp_path / "in" / "5.png").write_bytes(truncated[: len(truncated) // 2])
    samples[6] = replace(samples[6], image=replace(samples[6].image, location="s3://bucket/6.png"))
    report = export(samples, tmp_path / "out", "refer")
    assert [name for name, _ in report.failed] == ["2.png", "3.png", "4.png", "5.png", "6.png"]
    for (_, why), words in zip(
        report.failed, ["does not exist", "not an image", "31 x 20", "damaged", "not fetched"], strict=True
    ):
        assert words in why
    assert len(list(formats.read(tmp_path / "out"))) == 5
    left_out = json.loads((tmp_path / "out" / "dataset.json").read_text())["left_out"]
    assert [name for name, _ in left_out] == [name for name, _ in report.failed]


def test_a_full_disk_is_reported_per_image(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def full(path: Path, data: Any) -> int:
        if path.name == "3.png" and ".partial" in str(path):
            real(path, data[:5])
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    report = export(samples, tmp_path / "out", "masks")
    assert [name for name, _ in report.failed] == ["2.png", "3.png"]  # mask 3 belongs to image 2.png
    assert all("No space left" in why for _, why in report.failed)
    assert not (tmp_path / "out/images/3.png").exists()


def test_destination_is_replaced_only_when_asked_and_only_at_the_end(samples: list[Sample], tmp_path: Path) -> None:
    export(samples[:3], tmp_path / "out", "masks")
    with pytest.raises(DatasetError, match="exists; choose another folder or pass --overwrite"):
        export(samples, tmp_path / "out", "masks")
    with pytest.raises(DatasetError, match="nothing was exported"):
        export([], tmp_path / "out", "masks", overwrite=True)
    assert len(list(formats.read(tmp_path / "out"))) == 3
    export(samples, tmp_path / "out", "masks", overwrite=True, restart=True)
    assert len(list(formats.read(tmp_path / "out"))) == 10


def test_several_processes_give_the_same_files(samples: list[Sample], tmp_path: Path) -> None:
    export(samples, tmp_path / "one", "masks")
    export(samples, tmp_path / "two", "masks", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_images_become_upright_rgb_and_good_files_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    turned = Image.fromarray(np.arange(20 * 30, dtype=np.uint8).reshape(30, 20)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    cases = {
        "plain.png": Image.new("RGB", (30, 20), (1, 2, 3)),
        "grey.png": Image.new("L", (30, 20), 7),
        "alpha.png": Image.new("RGBA", (30, 20), (1, 2, 3, 4)),
        "deep.png": Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100),
        "palette.png": Image.new("P", (30, 20)),
        "cmyk.jpg": Image.new("CMYK", (30, 20)),
    }
    for name, image in cases.items():
        image.save(tmp_path / "in" / name)
    turned.save(tmp_path / "in" / "turned.jpg", exif=exif)
    record = Record("the ship", "ship", (target_of(np.eye(20, 30, dtype=bool)),), "train")
    names = [*cases, "turned.jpg"]
    found = [Sample(SourceImage(n, 30, 20, str(tmp_path / "in" / n)), (record,)) for n in names]
    report = export(found, tmp_path / "out", "masks")
    assert report.failed == []
    for name in names:
        with Image.open(tmp_path / "out/images" / name) as image:
            assert (image.mode, image.size, image.getexif().get(0x0112, 1)) == ("RGB", (30, 20), 1), name
    assert (tmp_path / "out/images/plain.png").read_bytes() == (tmp_path / "in/plain.png").read_bytes()
    deep = np.asarray(Image.open(tmp_path / "out/images/deep.png"))
    assert deep[[0, -1], [0, -1]].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_equal_names_do_not_overwrite_each_other(samples: list[Sample], tmp_path: Path) -> None:
    same = [replace(s, image=replace(s.image, file_name="a/b.png")) for s in samples[:2]]
    same.append(replace(samples[2], image=replace(samples[2].image, file_name="a__b.png")))
    export(same, tmp_path / "out", "masks")
    again = list(formats.read(tmp_path / "out"))
    values = [int(np.asarray(Image.open(str(s.image.location)))[0, 0, 0]) for s in again]
    assert values == [0, 1, 2]


@pytest.mark.parametrize(("name", "stays"), [("refer", 1), ("coco_jsonl", 0)])
def test_expressions_of_absent_objects_are_counted(
    samples: list[Sample], tmp_path: Path, name: str, stays: int
) -> None:
    absent = Record("the windmill", "windmill", (), "train", "absent")
    samples[0] = replace(samples[0], records=(*samples[0].records, absent))
    report = export(samples, tmp_path / "out", name)
    assert (report.records, report.without_target) == (11 - stays, stays)
    card = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (card["expressions"], card["absent_left_behind"]) == (11 - stays, stays)


def spoken(*records: Record) -> Sample:
    """A scene of 60 x 40 pixels."""
    return Sample(SourceImage("a.png", 60, 40), records)


def words(text: str, column: int, **origin: Any) -> Record:
    mask = np.zeros((40, 60), bool)
    mask[5:15, column : column + 8] = True
    return Record(text, "ship", (target_of(mask),), "train", "single", Provenance(source="label-studio", **origin))


def put(folder: Path, *found: Sample) -> list[Sample]:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    return [replace(one, image=replace(one.image, location=str(folder / "a.png"))) for one in found]


@pytest.mark.parametrize("name", ["webdataset", "huggingface"])
def test_every_sentence_keeps_its_kind_and_its_provenance(name: str, tmp_path: Path) -> None:
    if name == "huggingface":
        pytest.importorskip("pyarrow")
    first = words("the ship", 5, annotator=1, fate="unchanged", unread=("faded",))
    second = replace(words("the vessel", 5, annotator=2, fate="manual"), kind="other")
    export(put(tmp_path / "in", spoken(first, second)), tmp_path / "out", name)
    (again,) = formats.read(tmp_path / "out")
    assert [(r.expression, r.kind, r.provenance) for r in again.records] == [
        (r.expression, r.kind, r.provenance) for r in (first, second)
    ]


def test_cards_count_what_is_in_the_folder(tmp_path: Path) -> None:
    spare = replace(words("", 30), expression="")
    known, silent = put(tmp_path / "in", spoken(words("the ship", 5), spare), spoken(spare))
    for name, images, objects in (("webdataset", 1, 1), ("coco", 2, 3), ("coco_jsonl", 2, 3)):
        report = export([known, silent], tmp_path / name, name, reasons=lambda: ["task 2: no image"])
        card = json.loads((tmp_path / name / "dataset.json").read_text())
        assert (report.images, card["images"], card["objects"]) == (images, images, objects)
        assert card["left_out"] == [["task 2", "no image"]]
        assert f"1 expressions and {objects} objects on {images} images" in (tmp_path / name / "README.md").read_text()


def test_the_card_of_huggingface_names_the_splits_for_load_dataset(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    found = put(tmp_path / "in", spoken(words("the ship", 5), replace(words("the vessel", 30), split="val")))
    export(found, tmp_path / "out", "huggingface")
    _, head, _ = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    (config,) = yaml.safe_load(head)["configs"]
    files = {entry["split"]: sorted((tmp_path / "out").glob(entry["path"])) for entry in config["data_files"]}
    assert {split: len(found) for split, found in files.items()} == {"train": 1, "val": 1}


def test_only_expressions_that_were_read_fully(tmp_path: Path) -> None:
    kept, passed_over = words("the ship", 5), words("the ship with faded lines", 30)
    export(put(tmp_path / "in", spoken(kept, passed_over)), tmp_path / "source", "coco_jsonl")
    for name, expected in (("refer", ["the ship"]), ("coco_jsonl", ["the ship", ""])):
        arguments = ["export", str(tmp_path / "source"), str(tmp_path / name), "--format", name, "--read-fully"]
        result = CliRunner().invoke(dataset, arguments)
        assert result.exit_code == 0, result.output
        assert "1 expressions were not read fully and stay behind" in result.output
        assert [r.expression for s in formats.read(tmp_path / name) for r in s.records] == expected
    summary = CliRunner().invoke(dataset, ["stats", str(tmp_path / "source"), "--json"]).output
    found = json.loads(summary[summary.index("{") :])
    assert (found["read"], found["top_unread"]) == ({"fully": 1, "guessed": 0, "unread": 1}, {"faded": 1, "lines": 1})


def test_the_card_shows_what_names_and_licence_say_and_runs_none_of_it(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)> | [a](javascript:b)\n# Forged"
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path)
    mask = np.zeros((40, 40), bool)
    mask[4:20, 4:20] = True
    record = Record("the thing", evil, (target_of(mask),), "train", None, Provenance(model_version=evil))
    samples = [Sample(SourceImage("a.png", 40, 40, str(path)), (record,))]
    export(samples, tmp_path / "out", "coco_jsonl", details={"licence": evil, "name": evil, "source": evil})
    card = (tmp_path / "out/README.md").read_text()
    assert "<img" not in card
    assert "](" not in card.replace("\\](", "")  # a bracket with a backslash begins no link
    assert not any(line.startswith("# Forged") for line in card.splitlines())
    assert all(row.replace("\\|", "").count("|") == 3 for row in card.splitlines() if row.startswith("| "))
