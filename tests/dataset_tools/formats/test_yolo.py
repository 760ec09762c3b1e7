"""The exports for detectors, read back by the rules of ultralytics and of the DOTA devkit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from dataset_tools.formats import read
from dataset_tools.records import Record, Sample, SourceImage, Target, target_of

HEIGHT, WIDTH = 120, 200


def turned(center: tuple[float, float], size: tuple[float, float], angle: float) -> npt.NDArray[np.bool_]:
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(canvas, [cv2.boxPoints((center, size, angle)).round().astype(np.int32)], 1)
    return canvas.astype(bool)


SHIP = turned((80, 60), (70, 18), 30)
TANKS = turned((150, 30), (20, 20), 0) | turned((150, 90), (16, 16), 45)
EDGE = turned((195, 60), (30, 12), 20)
CROWD = turned((20, 100), (10, 10), 0)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    found = []
    for number, (split, suffix) in enumerate([("train", "png"), ("val", "png"), ("test", "png"), ("test", "bmp")]):
        name = f"{'c' if split == 'test' else number}.{suffix}"
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(
            tmp_path / name
        )
        objects = [("ship", SHIP), ("storagetank", TANKS), ("baseballfield", EDGE)] if split != "val" else []
        records = [Record("", category, (target_of(mask),), split) for category, mask in objects]
        if records:
            records.append(Record("the ship", "ship", (target_of(SHIP),), split))
            records.append(Record("", "ship", (replace(target_of(CROWD), crowd=True),), split))
        image = SourceImage(name, WIDTH, HEIGHT, str(tmp_path / name))
        found.append(Sample(image, tuple(records), split=split))
    return found


def ultralytics(root: Path, columns: int | None) -> Iterator[tuple[str, str, str, npt.NDArray[np.float64]]]:
    """(split, image, class, corners in pixels), as its ``verify_image_label`` takes and refuses them."""
    data = yaml.safe_load((root / "data.yaml").read_text())
    assert sorted(data["names"]) == list(range(len(data["names"])))
    for split in ("train", "val", "test"):
        for image in sorted((root / data[split]).iterdir()):
            label = Path(label_of(image)).with_suffix(".txt")
            with Image.open(image) as picture:
                size = picture.size
            for line in filter(None, label.read_text().splitlines()):
                words = line.split()
                corners = np.array(words[1:], np.float64).reshape(-1, 2)
                assert len(words) > 6
                assert columns is None or len(words) == columns
                assert corners.min() >= 0
                assert corners.max() <= 1
                yield split, image.name, data["names"][int(words[0])], corners * size


def label_of(image: Path) -> str:
    """As ultralytics' ``img2label_paths``: the last /images/ becomes /labels/."""
    head, tail = str(image).rsplit("/images/", 1)
    return f"{head}/labels/{tail}"


def filled(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(canvas, [corners.astype(np.int32)], 1)
    return canvas.astype(bool)


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_polygons_as_ultralytics_fills_them(samples: list[Sample], tmp_path: Path) -> None:
    report = export(samples, tmp_path / "out", "yolo-seg")
    rows = list(ultralytics(tmp_path / "out", None))
    assert [row[:3] for row in rows[:3]] == [
        ("train", "0.png", name) for name in ("ship", "storage tank", "baseball field")
    ]
    assert len(rows) == 9  # each object once, one line for the two tanks, no crowd
    assert len({row[1] for row in rows if row[0] == "test"}) == 2  # c.png and c.bmp keep a label file each
    for (_, _, _, corners), mask in zip(rows, [SHIP, TANKS, EDGE] * 3, strict=True):
        assert iou(filled(corners), mask) > 0.85  # OpenCV fills the pixels that the outline touches, too
    assert (tmp_path / "out/labels/val/1.txt").read_text() == ""
    assert report.loss is not None
    assert "IoU with the masks 0.99" in report.loss
    assert "3 crowds stay behind" in report.loss
    assert report.loss in (tmp_path / "out/dataset.json").read_text()
    with pytest.raises(DatasetError, match="not read"):
        list(read(tmp_path / "out", "yolo-seg"))


def test_rotated_boxes_as_ultralytics_reads_them(samples: list[Sample], tmp_path: Path) -> None:
    report = export(samples, tmp_path / "out", "yolo-obb")
    rows = list(ultralytics(tmp_path / "out", 9))
    (_, (long, short), _) = cv2.minAreaRect(rows[0][3].astype(np.float32))
    assert sorted((long, short)) == pytest.approx([19, 71], abs=2)
    assert iou(filled(rows[0][3]), SHIP) > 0.85
    assert report.loss is not None
    assert "3 reached beyond their image and are cut to it" in report.loss


def test_labels_as_the_dota_devkit_parses_them(samples: list[Sample], tmp_path: Path) -> None:
    export(samples, tmp_path / "out", "dota")
    objects = []
    for line in (tmp_path / "out/train/labelTxt/0.txt").read_text().splitlines():
        words = line.strip().split(" ")  # parse_dota_poly: lines of fewer than 9 words are passed over
        assert len(words) == 10
        objects.append((words[8], words[9], np.array(words[:8], np.float64).reshape(4, 2)))
    assert [entry[:2] for entry in objects] == [("ship", "0"), ("storage-tank", "0"), ("baseball-field", "0")]
    assert iou(filled(objects[0][2]), SHIP) > 0.85
    assert (tmp_path / "out/train/images/0.png").is_file()
    assert (tmp_path / "out/val/labelTxt/1.txt").read_text() == ""


def test_an_image_of_two_splits_is_held_out(samples: list[Sample], tmp_path: Path) -> None:
    first = samples[0]
    mixed = replace(first, records=(first.records[0], replace(first.records[1], split="test")))
    export([mixed], tmp_path / "out", "dota")
    assert [path.parent.parent.name for path in (tmp_path / "out").rglob("*.txt")] == ["test"]


def test_a_mask_of_one_pixel_has_a_rectangle(samples: list[Sample], tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3, 7] = True
    one = replace(samples[0], records=(Record("", "ship", (Target(target_of(mask).counts),), "train"),))
    for name in ("yolo-obb", "yolo-seg"):
        export([one], tmp_path / name, name)
        words = (tmp_path / name / "labels/train/0.txt").read_text().split()
        corners = np.array(words[1:], np.float64).reshape(-1, 2) * (WIDTH, HEIGHT)
        assert {tuple(corner) for corner in corners.round(1)} == {(7, 3), (8, 3), (8, 4), (7, 4)}
