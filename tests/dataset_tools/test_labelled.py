"""Labelled images: every format gives the same ones as far as it holds them; nothing is decoded before it is asked."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_tools import formats, labelled
from dataset_tools.categories import category_name
from dataset_tools.errors import DatasetError, ImageError, MaskError
from dataset_tools.export import export
from dataset_tools.geometry import Box
from dataset_tools.image_files import file_key
from dataset_tools.labelled import (
    LabelledExpression,
    LabelledImage,
    LabelledObject,
    questions,
    read,
    spread,
)
from dataset_tools.masks import Mask
from dataset_tools.records import Record, Sample, SourceImage, target_of
from tests.dataset_tools.formats.test_dior_rsvg import an_object, write_xml

HEIGHT, WIDTH = 24, 31


def mask_at(x: int, y: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + 6, x : x + 7] = True
    mask[y + 2, x + 2] = False  # a hole, which polygons lose
    return mask


SHIP, BOAT, COURT = mask_at(2, 3), mask_at(12, 4), mask_at(20, 15)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Two images in train, one in test; two expressions name one ship, one names both, one nothing."""
    found = []
    for number, split in enumerate(("train", "train", "test")):
        path = tmp_path / "source" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8)).save(path)
        ship, boat, court = (target_of(mask) for mask in (SHIP, BOAT, COURT))
        records = (
            Record("the left ship", "ship", (ship,), split, "region"),
            Record("the first ship", "ship", (ship,), split, "region"),
            Record("both ships", "ship", (ship, boat), split, "all"),
            Record("the tennis court", "tenniscourt", (court,), split, "single"),
            Record("the bridge", "bridge", (), split, "absent"),
        )
        found.append(Sample(SourceImage(path.name, WIDTH, HEIGHT, str(path)), records))
    return found


def asked(images: list[LabelledImage]) -> list[tuple[str, bytes]]:
    """Every expression with the pixels that it means."""
    nothing = np.zeros((HEIGHT, WIDTH), np.bool_)
    return [
        (one.expression.text, np.logical_or.reduce([nothing, *(item.mask() for item in one.targets)]).tobytes())
        for one in questions(images)
    ]


@pytest.mark.parametrize("name", formats.READ)
def test_every_format_gives_objects_once_and_expressions_with_what_they_name(
    name: str, samples: list[Sample], tmp_path: Path
) -> None:
    if name == "huggingface":
        pytest.importorskip("pyarrow")
    export(samples, tmp_path / "out", name)
    images = read(tmp_path / "out", "train")
    pixels = {int(image.pixels()[0, 0, 0]) for image in images}
    assert pixels == {0, 40}
    masks = [item.mask().tobytes() for image in images for item in image.objects]
    if name == "refsegrs":  # one image per expression
        assert set(masks) == {mask.tobytes() for mask in (SHIP, SHIP | BOAT, COURT)}
    elif name in ("coco", "coco_jsonl"):
        assert sorted(masks) == sorted(mask.tobytes() for mask in (SHIP, BOAT, COURT) * 2)
    else:  # what several objects were is one mask
        assert sorted(masks) == sorted(mask.tobytes() for mask in (SHIP, SHIP | BOAT, COURT) * 2)
    for image in images:
        assert (image.height, image.width) == (HEIGHT, WIDTH)
        for item in image.objects:
            assert item.box == Box.of_mask(item.mask())
            assert item.category in ("ship", "tenniscourt") or (name, item.category) == ("refsegrs", "object")
    words = [
        ("the left ship", SHIP),
        ("the first ship", SHIP),
        ("both ships", SHIP | BOAT),
        ("the tennis court", COURT),
    ]
    if name == "coco_jsonl":
        words.append(("the bridge", np.zeros_like(SHIP)))
    expected = [] if name == "coco" else [(text, mask.tobytes()) for text, mask in words * 2]
    assert sorted(asked(images)) == sorted(expected)
    with pytest.raises(DatasetError, match=r"split 'nightly'"):
        read(tmp_path / "out", "nightly")


@pytest.mark.parametrize("name", ["coco_jsonl", "refer", "masks"])
def test_a_file_of_image_names_is_a_split_of_every_format(name: str, samples: list[Sample], tmp_path: Path) -> None:
    export(samples, tmp_path / "out", name)
    every = [image.name for image in read(tmp_path / "out")]
    chosen = tmp_path / "chosen.txt"
    chosen.write_text(f"{every[2]}\n{every[0]}\n")
    assert [image.name for image in read(tmp_path / "out", str(chosen))] == [every[0], every[2]]
    chosen.write_text("elsewhere.png\n")
    with pytest.raises(DatasetError, match=r"1 images .*elsewhere\.png"):
        read(tmp_path / "out", chosen)


def test_coco_jsonl_keeps_kinds_labels_ids_and_what_is_complete(samples: list[Sample], tmp_path: Path) -> None:
    export(samples, tmp_path / "out", "coco_jsonl")
    image = read(tmp_path / "out")[0]
    assert [e.kind for e in image.expressions] == ["region", "region", "all", "single", "absent"]
    assert [e.label for e in image.expressions] == ["ship", "ship", "ship", "tenniscourt", "bridge"]
    assert image.expressions[2].objects == (0, 1)
    assert [item.id for item in image.objects] == ["1", "2", "3"]
    assert {"ship", "tenniscourt", "bridge"} <= image.complete
    assert image.key == file_key(image.path)


def test_expressions_are_asked_in_the_order_of_their_file(samples: list[Sample], tmp_path: Path) -> None:
    root = export_with_lines(samples, tmp_path)
    lines = (root / "expressions.jsonl").read_text().splitlines()
    mixed = [*lines[::2], *lines[1::2]]
    (root / "expressions.jsonl").write_text("\n".join(mixed))
    found = [(one.image.name, one.expression.text) for one in questions(read(root))]
    assert found == [(json.loads(line)["image"], json.loads(line)["expression"]) for line in mixed]


def test_other_expressions_can_be_asked_of_a_folder(samples: list[Sample], tmp_path: Path) -> None:
    root = export_with_lines(samples, tmp_path)
    row = json.loads((root / "expressions.jsonl").read_text().splitlines()[2])
    other = tmp_path / "crowds.jsonl"
    other.write_text(json.dumps({**row, "expression": "every boat"}))
    (only,) = questions(read(root, "train", expressions=other))
    assert (only.expression.text, only.kind, len(only.targets)) == ("every boat", "all", 2)
    with pytest.raises(DatasetError, match=r"nowhere\.jsonl does not exist"):
        read(root, expressions=tmp_path / "nowhere.jsonl")
    export(samples, tmp_path / "refer", "refer")
    with pytest.raises(DatasetError, match="goes with a coco_jsonl folder"):
        read(tmp_path / "refer", expressions=other)


def export_with_lines(samples: list[Sample], folder: Path) -> Path:
    export(samples, folder / "out", "coco_jsonl")
    return folder / "out"


def test_packed_annotations_are_read(samples: list[Sample], tmp_path: Path) -> None:
    root = export_with_lines(samples, tmp_path)
    before = read(root)
    plain = root / "annotations.json"
    (root / "annotations.json.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert formats.detect(root) == "coco_jsonl"
    assert read(root) == before
    (root / "annotations.json.gz").write_bytes(b"\x1f\x8b damaged")
    with pytest.raises(DatasetError, match=r"annotations\.json\.gz"):
        read(root)


def test_nothing_is_decoded_before_it_is_asked(samples: list[Sample], tmp_path: Path) -> None:
    root = export_with_lines(samples, tmp_path)
    first = read(root)[0].path
    first.write_bytes(b"no image")
    damaged = json.loads((root / "annotations.json").read_text())
    damaged["annotations"][0]["segmentation"]["counts"] = "0"
    (root / "annotations.json").write_text(json.dumps(damaged))
    image = read(root)[0]
    assert image.path == first
    with pytest.raises(ImageError, match="image"):
        image.pixels()
    with pytest.raises(MaskError, match=r"object 1 \(ship\)"):
        image.objects[0].mask()


def test_an_image_of_another_size_than_its_labels_is_named(samples: list[Sample], tmp_path: Path) -> None:
    image = read(export_with_lines(samples, tmp_path))[0]
    with pytest.raises(ImageError, match=f"{WIDTH} x {HEIGHT} pixels, its labels were made for 62 x {HEIGHT}"):
        replace(image, width=62).pixels()


def test_dior_rsvg_has_boxes_in_the_order_of_its_split(tmp_path: Path) -> None:
    write_xml(tmp_path, "00010", an_object("third"))
    write_xml(tmp_path, "00002", an_object("first"), an_object("second"))
    (tmp_path / "test.txt").write_text("2\n0\n1\n")
    images = read(tmp_path, "test", masks=False)
    assert [image.name for image in images] == ["00010.jpg", "00002.jpg"]
    assert [one.expression.text for one in questions(images)] == ["third", "first", "second"]
    (target,) = questions(images)[0].targets
    assert (target.box, target.category) == (Box(10, 20, 60, 90), "ship")
    with pytest.raises(DatasetError, match="has a box and no mask"):
        target.mask()
    with pytest.raises(DatasetError, match="dior_rsvg, which holds boxes and no masks"):
        read(tmp_path, "test")
    with pytest.raises(DatasetError, match="samples need masks"):
        list(formats.read(tmp_path))
    with pytest.raises(DatasetError, match="is not written, only read; choose one of refer"):
        formats.writer("dior_rsvg")


def test_a_folder_of_no_format_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no known format; .*annotations\.json \(coco_jsonl\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("label", "name"),
    [("Plane", "airplane"), ("Tennis_Courts", "tenniscourt"), ("Solar_Panel", "solar panel"), (" Pond  A", "pond a")],
)
def test_labels_get_a_canonical_name_where_there_is_one(label: str, name: str) -> None:
    assert category_name(label) == name


def test_an_object_keeps_its_pixels_and_its_tight_box() -> None:
    item = LabelledObject.of("Solar_Panel", SHIP)
    assert (item.mask() == SHIP).all()
    assert item.box == Box(2, 3, 9, 9)
    assert item.category == "solar panel"
    assert LabelledObject.of("ship", item.mask()).rle == item.rle


def test_a_key_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    image = LabelledImage(path, 1, 1)
    first = image.key
    path.write_bytes(b"two, longer")
    assert image.key != first
    assert replace(image, sha256="ab").key == "ab"
    path.unlink()
    with pytest.raises(ImageError, match=r"a\.png: No such file"):
        _ = image.key


def test_a_limit_keeps_every_part_of_the_dataset() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread([1, 2], 20) == [1, 2]


def test_a_question_without_a_kind_says_whether_it_is_absent() -> None:
    image = LabelledImage(
        Path("a.png"),
        HEIGHT,
        WIDTH,
        (LabelledObject.of("ship", SHIP),),
        (LabelledExpression("the ship", (0,)), LabelledExpression("the dam", ())),
    )
    assert [(one.kind, one.label) for one in labelled.questions([image])] == [("expression", "ship"), ("absent", "")]
