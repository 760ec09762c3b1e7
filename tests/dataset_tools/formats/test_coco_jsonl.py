"""Reading coco_jsonl folders: what is there, and what each broken form is called."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset_tools import formats
from dataset_tools.errors import DatasetError
from dataset_tools.formats import coco_jsonl
from dataset_tools.geometry import Box
from dataset_tools.masks import to_coco_rle

HEIGHT, WIDTH = 20, 30
SQUARE = [4.0, 3.0, 10.0, 3.0, 10.0, 9.0, 4.0, 9.0]


def ring() -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[2:18, 12:28] = True
    mask[6:10, 16:20] = False
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / name)
    annotations = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 3, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "harbor"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [SQUARE], "bbox": [4, 3, 6, 6]},
            {"id": 2, "image_id": 7, "category_id": 2, "segmentation": to_coco_rle(ring())},
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    lines = [
        {"id": 0, "image": "a.png", "category": "ship", "expression": "the ship", "kind": "single", "ann_ids": [1]},
        {"id": 1, "image": "a.png", "category": "ship", "expression": "everything", "kind": "all", "ann_ids": [1, 2]},
        {"id": 2, "image": "b.png", "category": "ship", "expression": "the ship", "kind": "absent", "ann_ids": []},
    ]
    (tmp_path / "expressions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a.png"], "test": ["b.png"]}))
    return tmp_path


def test_reads_images_masks_and_expressions(folder: Path) -> None:
    data = coco_jsonl.read(folder)
    assert [(i.id, i.file_name, i.width, i.height) for i in data.images] == [(7, "a.png", 30, 20), (3, "b.png", 30, 20)]
    ship, harbor = data.image("a.png").annotations
    assert (ship.category, ship.box) == ("ship", Box(4, 3, 10, 9))
    assert harbor.box == Box(12, 2, 28, 18)  # no bbox in the file: taken from the mask
    assert np.array_equal(harbor.mask(), ring())
    assert ship.mask().sum() == 36
    assert np.array_equal(data.target(data.expressions[1]), ring() | ship.mask())
    assert not data.target(data.expressions[2]).any()


@pytest.mark.parametrize("form", ["name", "json file", "text file"])
def test_split_keeps_its_images_only(folder: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "list.json").write_text('["b.png"]')
    (tmp_path / "list.txt").write_text("b.png\n\n")
    forms: dict[str, str | Path] = {
        "name": "test",
        "json file": tmp_path / "list.json",
        "text file": tmp_path / "list.txt",
    }
    data = coco_jsonl.read(folder, forms[form])
    assert [image.file_name for image in data.images] == ["b.png"]
    assert [expression.id for expression in data.expressions] == [2]


def test_folder_without_expressions_has_none(folder: Path) -> None:
    (folder / "expressions.jsonl").unlink()
    (folder / "split.json").unlink()
    data = coco_jsonl.read(folder)
    assert data.expressions == ()
    assert len(data.images) == 2


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / "annotations.json").read_text())
        change(content)
        (folder / "annotations.json").write_text(json.dumps(content))

    return apply


def append(line: str) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        with (folder / "expressions.jsonl").open("a") as file:
            file.write(line + "\n")

    return apply


EXPRESSION = {"id": 9, "image": "a.png", "category": "ship", "expression": "x", "kind": "single", "ann_ids": [1]}
BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("no annotations", lambda f: (f / "annotations.json").unlink(), "annotations.json does not exist"),
    ("bad json", lambda f: (f / "annotations.json").write_text("{"), "not valid JSON"),
    ("a list", lambda f: (f / "annotations.json").write_text("[]"), "must hold a JSON object"),
    ("no categories", edit(lambda c: c.pop("categories")), "'categories' must be a list"),
    ("no image file", lambda f: (f / "images" / "a.png").unlink(), "a.png does not exist"),
    ("image twice", edit(lambda c: c["images"].append(c["images"][0])), "image id 7 occurs twice"),
    ("image id text", edit(lambda c: c["images"][0].update(id="7")), "unusable value '7'"),
    ("no width", edit(lambda c: c["images"][0].pop("width")), "'width' is missing"),
    ("outside", edit(lambda c: c["images"][0].update(file_name="../a.png")), "leaves the images folder"),
    ("unknown image", edit(lambda c: c["annotations"][0].update(image_id=99)), "image_id 99"),
    ("unknown category", edit(lambda c: c["annotations"][0].update(category_id=99)), "category_id 99"),
    ("annotation twice", edit(lambda c: c["annotations"][1].update(id=1)), "annotation id 1 occurs twice"),
    ("RLE size", edit(lambda c: c["images"][0].update(height=21)), "RLE of size [20, 30]"),
    ("bbox", edit(lambda c: c["annotations"][0].update(bbox=[1, 2])), "bbox must be"),
    ("expression json", append("{oops"), "expressions.jsonl, line 4"),
    ("expression image", append(json.dumps({**EXPRESSION, "image": "z.png"})), "line 4: image 'z.png'"),
    ("expression ann", append(json.dumps({**EXPRESSION, "ann_ids": [5]})), "line 4: ann_ids [5]"),
    ("expression twice", append(json.dumps({**EXPRESSION, "id": 0})), "line 4: expression id 0 occurs twice"),
    ("expression key", append(json.dumps({**EXPRESSION, "kind": None})), "'kind' has the unusable value None"),
    ("split form", lambda f: (f / "split.json").write_text("[1]"), "must map split names"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_broken_folder_is_explained(folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(folder)
    with pytest.raises(DatasetError) as caught:
        coco_jsonl.read(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3]], "at least 3 points"),
        ({"size": [HEIGHT, WIDTH], "counts": "PP"}, "annotation 1 (ship)"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 5]}, "cover 10 pixels, the image has 600"),
    ],
)
def test_damaged_mask_is_explained_when_asked_for(folder: Path, segmentation: Any, message: str) -> None:
    edit(lambda c: c["annotations"][0].update(segmentation=segmentation))(folder)
    with pytest.raises(DatasetError) as caught:
        coco_jsonl.read(folder).annotation(1).mask()
    assert message in str(caught.value)


def test_unknown_split_names_the_choices(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'val'.*\['test', 'train'\]"):
        coco_jsonl.read(folder, "val")
    (folder / "list.txt").write_text("zzz.png")
    with pytest.raises(DatasetError, match=r"zzz\.png"):
        coco_jsonl.read(folder, folder / "list.txt")


def test_reads_the_research_images(shared_data: Path) -> None:
    data = coco_jsonl.read(shared_data / "nwpu_vhr10", "test")
    assert (len(data.images), len(data.expressions)) == (85, 439)
    buildings = coco_jsonl.read(shared_data / "inria_512")
    assert buildings.expressions == ()
    assert all(
        Box.of_mask(a.mask()) == a.box for images in (data, buildings) for i in images.images for a in i.annotations
    )


def test_packed_annotations_are_read_alike(folder: Path) -> None:
    plain = coco_jsonl.read(folder)
    file = folder / "annotations.json"
    (folder / "annotations.json.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    packed = coco_jsonl.read(folder)
    assert [image.file_name for image in packed.images] == [image.file_name for image in plain.images]
    assert packed.expressions == plain.expressions
    assert formats.detect(folder) == "coco_jsonl"
    (folder / "annotations.json.gz").write_bytes(b"not packed")
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        coco_jsonl.read(folder)


def test_other_expressions_and_cut_objects(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "annotations.json").read_text())
    content["annotations"][0]["truncated"] = 1
    (folder / "annotations.json").write_text(json.dumps(content))
    first = content["annotations"][0]
    image = next(entry for entry in content["images"] if entry["id"] == first["image_id"])
    row = {"id": 1, "image": image["file_name"], "category": "ship", "expression": "it", "kind": "single"}
    (tmp_path / "more.jsonl").write_text(json.dumps(row | {"ann_ids": [first["id"]], "bbox": None}) + "\n")
    data = coco_jsonl.read(folder, expressions=tmp_path / "more.jsonl")
    assert [one.expression for one in data.expressions] == ["it"]
    assert [one.id for entry in data.images for one in entry.annotations if one.truncated] == [first["id"]]
    with pytest.raises(DatasetError, match=r"none\.jsonl does not exist"):
        coco_jsonl.read(folder, expressions=tmp_path / "none.jsonl")
