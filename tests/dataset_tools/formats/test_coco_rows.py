"""COCO of other tools: every layout is found, every unusable row is named, nothing becomes something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dataset_tools import formats
from dataset_tools.checks.validate import validate
from dataset_tools.cli import dataset as main
from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from dataset_tools.formats.left_out import LeftOut
from dataset_tools.labelled import read as labelled
from dataset_tools.records import Sample, SourceImage

CASES = Path(__file__).parents[2] / "data" / "cases"
SQUARE = [[5, 5, 20, 5, 20, 20, 5, 20]]


def read(root: Path) -> tuple[list[Sample], list[LeftOut]]:
    left_out: list[LeftOut] = []
    return list(formats.read(root, "coco", left_out.append)), left_out


def areas(samples: list[Sample]) -> dict[str, list[int]]:
    return {s.image.file_name: [s.area(record) for record in s.records] for s in samples}


def put(
    root: Path, index: str, names: list[str], files: list[str], change: Callable[[Any], object] | None = None
) -> None:
    """A COCO index of one square ship per image, and the image files."""
    content = {
        "images": [{"id": k, "file_name": name, "width": 64, "height": 48} for k, name in enumerate(names)],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 1, "segmentation": SQUARE, "bbox": [5, 5, 15, 15], "iscrowd": 0}
            for k in range(len(names))
        ],
        "categories": [{"id": 1, "name": "Ship"}],
    }
    if change is not None:
        change(content)
    (root / index).parent.mkdir(parents=True, exist_ok=True)
    (root / index).write_text(json.dumps(content))
    for k, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)


def changed(root: Path, **values: Any) -> tuple[list[Sample], list[LeftOut]]:
    """What is read of the square with other values of its annotation."""
    put(root, "annotations/instances.json", ["a.png"], ["images/a.png"], lambda c: c["annotations"][0].update(values))
    return read(root)


CODE = {"size": [48, 64], "counts": [5 * 48 + 5, 15, *(33, 15) * 14, 48 * 64 - 19 * 48 - 20]}


@pytest.mark.parametrize(
    ("segmentation", "strict"),
    [
        (SQUARE[0], False),
        ([[5, 5], [20, 5], [20, 20], [5, 20]], False),
        ([[[5, 5], [20, 5], [20, 20], [5, 20]]], False),
        ([CODE], False),
        (CODE, True),
        ([[*SQUARE[0], 5, 5]], True),
        ([*SQUARE, [8, 8, 12, 8, 12, 12]], True),
    ],
)
def test_a_segmentation_of_any_form_is_the_mask_and_validate_names_what_pycocotools_refuses(
    tmp_path: Path, segmentation: Any, strict: bool
) -> None:
    samples, left_out = changed(tmp_path, segmentation=segmentation)
    assert (areas(samples), left_out) == ({"a.png": [225]}, [])
    codes = [finding.code for finding in validate(tmp_path, pixels=False).findings]
    assert ("coco-segmentation" in codes) is not strict


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ([5, 5, 20, 20], "at least 3 points"),
        ([[0.1, 0.1, 0.3, 0.1, 0.3, 0.3]], "covers no pixel"),
        ([{"x": 5, "y": 5}, {"x": 9, "y": 5}, {"x": 9, "y": 9}], "run-length code"),
        ({**CODE, "size": [64, 48]}, "for size [64, 48]"),
        ({"size": [48, 64], "counts": "b'e7:V1'"}, "damaged"),
        ("e7:V1", "list of polygons or a run-length dict"),
    ],
)
def test_a_segmentation_that_is_none_is_left_out_and_nothing_of_it_is_said_to_be_read(
    tmp_path: Path, segmentation: Any, why: str
) -> None:
    samples, left_out = changed(tmp_path, segmentation=segmentation)
    assert areas(samples) == {"a.png": []}
    assert left_out
    assert all(why in row.why and "are read" not in row.why for row in left_out)


@pytest.mark.parametrize(("value", "crowd"), [(1, True), ("1", True), ("true", True), (True, True), (0, False)])
def test_a_crowd_is_one_however_it_is_written(tmp_path: Path, value: Any, crowd: bool) -> None:
    (sample,), _ = changed(tmp_path, iscrowd=value)
    assert [target.crowd for record in sample.records for target in record.targets] == [crowd]


def test_one_image_listed_with_two_sizes_keeps_the_masks_of_the_first(tmp_path: Path) -> None:
    def twice(content: Any) -> None:
        content["images"].append({**content["images"][0], "id": 7, "width": 128, "height": 96})
        content["annotations"].append({**content["annotations"][0], "id": 7, "image_id": 7})

    put(tmp_path, "annotations/instances.json", ["a.png"], ["images/a.png"], twice)
    samples, left_out = read(tmp_path)
    assert areas(samples) == {"a.png": [225]}
    assert "listed as 64 x 48 before and as 128 x 96 here" in left_out[0].why
    assert "image_id 7 is not among the images" in left_out[1].why


def test_boxes_that_cvat_turned_are_the_boxes_around_them_and_less_than_a_pixel_is_none(tmp_path: Path) -> None:
    turned = {"attributes": {"rotation": 90.0}}
    (sample,), _ = changed(tmp_path / "a", segmentation=[], bbox=[10, 20, 20, 10], **turned)
    assert [tuple(map(round, box.box)) for box in sample.boxes] == [(15, 15, 25, 35)]
    (sample,), left_out = changed(tmp_path / "b", segmentation=[], bbox=[0.1, 0.2, 0.3, 0.3])
    assert not sample.boxes
    assert "usable bbox in pixels ([0.1, 0.2, 0.3, 0.3])" in left_out[0].why


def test_a_box_beyond_its_image_is_found(tmp_path: Path) -> None:
    changed(tmp_path, segmentation=[], bbox=[50, 40, 60, 48])  # x0, y0, x1, y1, perhaps
    assert "mask-outside" in [finding.code for finding in validate(tmp_path, pixels=False).findings]


def test_an_address_in_place_of_a_file_name_finds_its_file(tmp_path: Path) -> None:
    put(tmp_path, "annotations/instances.json", ["https://x.org/d/a.png?token=1"], ["images/a.png"])
    samples, left_out = read(tmp_path)
    assert (areas(samples), left_out) == ({"d/a.png": [225]}, [])


def test_a_degenerate_polygon_is_left_out_alone() -> None:
    samples, left_out = read(CASES / "coco_polygon_of_4_numbers")
    assert areas(samples) == {"a.png": [225], "b.png": []}
    assert [(row.where, row.image) for row in left_out] == [("instances_train.json: annotation 2", "b.png")]
    report = validate(CASES / "coco_polygon_of_4_numbers")
    assert (report.images, [f.code for f in report.findings if f.severity == "error"]) == (2, ["mask-damaged"])


def test_a_box_stays_a_box(tmp_path: Path) -> None:
    samples, left_out = read(CASES / "coco_box_only")
    assert left_out == []
    assert areas(samples) == {"a.png": [225], "b.png": []}
    assert [tuple(box.box) for box in samples[1].boxes] == [(5, 5, 20, 20)]
    export(samples, tmp_path / "out", "coco")
    written = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())["annotations"]
    assert [("segmentation" in entry, entry["bbox"]) for entry in written] == [
        (True, [5, 5, 15, 15]),
        (False, [5, 5, 15, 15]),
    ]
    assert [len(sample.boxes) for sample in read(tmp_path / "out")[0]] == [0, 1]
    assert [f.code for f in validate(CASES / "coco_box_only").findings if "box" in f.code] == ["box-only"]
    with pytest.raises(DatasetError, match="1 objects have a box and no mask"):
        labelled(CASES / "coco_box_only")
    assert [o.segmentation for i in labelled(CASES / "coco_box_only", masks=False)[1:] for o in i.objects] == [None]


def test_boxes_are_filled_only_when_asked_for(tmp_path: Path) -> None:
    source = str(CASES / "coco_box_only")
    plain = CliRunner().invoke(main, ["export", source, str(tmp_path / "plain"), "--format", "coco_jsonl"])
    assert plain.exit_code == 2
    assert "1 objects have only a box, coco_jsonl cannot hold them: --boxes-as-masks" in plain.output
    arguments = ["export", source, str(tmp_path / "filled"), "--format", "coco_jsonl", "--boxes-as-masks"]
    filled = CliRunner().invoke(main, arguments)
    assert filled.exit_code == 0, filled.output
    assert areas(list(formats.read(tmp_path / "filled"))) == {"a.png": [225], "b.png": [225]}


def test_ids_may_be_text_or_missing(tmp_path: Path) -> None:
    samples, left_out = read(CASES / "coco_id_as_text")
    assert (areas(samples), left_out) == ({"a.png": [225], "b.png": [225]}, [])

    def change(content: Any) -> None:
        content["images"][0]["id"] = "zero"
        content["annotations"][0].update(image_id="zero", category_id="1")
        del content["annotations"][0]["id"], content["annotations"][1]["id"]

    put(tmp_path, "annotations/instances_val2017.json", ["a.png", "b.png"], ["images/a.png", "images/b.png"], change)
    samples, left_out = read(tmp_path)
    assert (areas(samples), left_out) == ({"a.png": [225], "b.png": [225]}, [])
    assert {record.split for sample in samples for record in sample.records} == {"val"}


def test_a_crowd_stays_a_crowd(tmp_path: Path) -> None:
    samples, _ = read(CASES / "coco_iscrowd")
    assert [[t.crowd for r in s.records for t in r.targets] for s in samples] == [[False], [True]]
    for name in ("coco", "coco_jsonl"):
        export(samples, tmp_path / name, name)
        again = list(formats.read(tmp_path / name))
        assert [[t.crowd for r in s.records for t in r.targets] for s in again] == [[False], [True]]
    assert [len(image.objects) for image in labelled(CASES / "coco_iscrowd")] == [1, 0]


def test_images_without_objects_stay(tmp_path: Path) -> None:
    samples, _ = read(CASES / "coco_image_without_objects")
    for name in ("coco", "coco_jsonl"):
        report = export(samples, tmp_path / name, name)
        assert report.images == 2
        assert list(areas(list(formats.read(tmp_path / name)))) == ["a.png", "b.png"]
    written = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert [image["file_name"] for image in written["images"]] == ["a.png", "b.png"]
    assert json.loads((tmp_path / "coco_jsonl/split.json").read_text()) == {"train": ["a.png", "b.png"]}


def test_label_studios_own_export_is_read_as_folder_and_as_file(tmp_path: Path) -> None:
    for source in (CASES / "label_studio_coco_export", CASES / "label_studio_coco_export/result.json"):
        result = CliRunner().invoke(main, ["export", str(source), str(tmp_path / source.name), "--format", "coco"])
        assert result.exit_code == 0, result.output
        assert areas(list(formats.read(tmp_path / source.name))) == {"a.png": [225], "b.png": [225]}


@pytest.mark.parametrize(
    ("index", "names", "files"),
    [
        (
            "annotations/instances_default.json",
            ["a.png", "s/b.png"],
            ["images/default/a.png", "images/default/s/b.png"],
        ),
        ("annotations/instances_train2017.json", ["a.png", "b.png"], ["train2017/a.png", "train2017/b.png"]),
        ("train/_annotations.coco.json", ["a.png", "b.png"], ["train/a.png", "train/b.png"]),
        ("result.json", ["../../data/upload/1/a.png", "../../data/upload/1/b.png"], ["images/a.png", "images/b.png"]),
        ("result.json", ["images\\1\\a.png", "C:\\x\\b.png"], ["images/1/a.png", "images/b.png"]),
        ("instances.json", ["/home/me/a.png", "b%20c.png"], ["a.png", "deep/down/b c.png"]),
    ],
    ids=["cvat", "coco-2017", "roboflow", "label-studio", "windows", "absolute"],
)
def test_images_are_found_where_tools_put_them(tmp_path: Path, index: str, names: list[str], files: list[str]) -> None:
    put(tmp_path, index, names, files)
    assert formats.detect(tmp_path) == "coco"
    samples, left_out = read(tmp_path)
    assert left_out == []
    assert [Path(str(s.image.location)).relative_to(tmp_path).as_posix() for s in samples] == files
    assert [record.category for sample in samples for record in sample.records] == ["ship", "ship"]


def test_one_name_in_two_splits_is_two_images(tmp_path: Path) -> None:
    put(tmp_path, "annotations/instances_train2017.json", ["a.png"], ["train2017/a.png"])
    put(tmp_path, "annotations/instances_val2017.json", ["a.png"], ["train2017/a.png", "val2017/a.png"])
    samples, left_out = read(tmp_path)
    assert left_out == []
    assert [s.image.file_name for s in samples] == ["a.png", "val2017/a.png"]
    assert [Path(str(s.image.location)).parent.name for s in samples] == ["train2017", "val2017"]


def test_a_name_that_fits_several_files_is_not_guessed(tmp_path: Path) -> None:
    put(tmp_path, "annotations/instances_default.json", ["a.png", "b.png"], ["x/a.png", "y/a.png", "x/b.png"])
    samples, left_out = read(tmp_path)
    assert [s.image.file_name for s in samples] == ["b.png"]
    assert "2 files are called 'a.png' (x/a.png, y/a.png)" in left_out[0].why


BROKEN: list[tuple[str, Callable[[Any], object]]] = [
    ("image id 0 is given twice", lambda c: c["images"][1].update(id=0)),
    ("needs an id and a file_name", lambda c: c["images"].append("b.png")),
    ("needs an id and a file_name", lambda c: c["images"].append({"id": 9, "file_name": None})),
    ("is not among the images", lambda c: c["annotations"][1].update(image_id=77)),
    ("is not among the categories", lambda c: c["annotations"][1].update(category_id=None)),
    ("id occurs twice", lambda c: c["annotations"][1].update(id=0)),
    ("an object was expected", lambda c: c["annotations"].__setitem__(1, [1, 2])),
    ("neither a segmentation nor a usable bbox", lambda c: c["annotations"][1].update(segmentation=[], bbox=[1, 2, 0])),
    ("neither a segmentation nor a usable bbox", lambda c: c["annotations"][1].update(segmentation=None, bbox=None)),
    ("run-length", lambda c: c["annotations"][1].update(segmentation={"size": [48, 64], "counts": "zz"})),
    ("run-length code is for size 3", lambda c: c["annotations"][1].update(segmentation={"size": 3, "counts": [1]})),
    ("beyond", lambda c: c["annotations"][1].update(segmentation=[[1e30, 0, 1, 1, 5, 5]])),
    ("finite", lambda c: c["annotations"][1].update(segmentation=[[float("nan"), 0, 1, 1, 5, 5]])),
    ("a segmentation is a list of polygons", lambda c: c["annotations"][1].update(segmentation="RLE")),
    ("covers no pixel", lambda c: c["annotations"][1].update(segmentation=[[5, 5, 20, 5, 10, 5]])),
    ("needs an id and a name", lambda c: c["categories"].append({"id": 4})),
]


@pytest.mark.parametrize(("why", "change"), BROKEN, ids=[f"{k}-{why}" for k, (why, _) in enumerate(BROKEN)])
def test_a_bad_row_is_named_and_the_rest_is_read(tmp_path: Path, why: str, change: Callable[[Any], object]) -> None:
    files = ["images/a.png", "images/b.png", "images/c.png"]
    put(tmp_path, "annotations/instances_train.json", ["a.png", "b.png", "c.png"], files, change)
    samples, left_out = read(tmp_path)
    assert any(why in row.why for row in left_out), left_out
    assert areas(samples)["a.png"][:1] == [225]
    assert areas(samples)["c.png"] == [225]
    report = validate(tmp_path)
    assert len([f for f in report.findings if f.severity == "error"]) == len(left_out)
    with pytest.raises(DatasetError):
        list(formats.read(tmp_path))


def test_a_file_is_validated_too_and_a_bad_row_hides_no_other_finding(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["annotations"][0]["image_id"] = 99
        content["annotations"][1]["segmentation"] = [[5, 5, 500, 5, 20, 20]]

    put(tmp_path, "result.json", ["images/a.png", "images/b.png"], ["images/a.png", "images/b.png"], change)
    for root in (tmp_path, tmp_path / "result.json"):
        assert {"row-unusable", "mask-outside"} <= {finding.code for finding in validate(root).findings}


def test_the_good_polygons_of_an_object_stay(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["annotations"][0]["segmentation"] = [[1, 1, 2, 2], *SQUARE]

    put(tmp_path, "annotations/instances_train.json", ["a.png"], ["images/a.png"], change)
    samples, left_out = read(tmp_path)
    assert areas(samples) == {"a.png": [225]}
    assert "the other polygons of the object are read" in left_out[0].why


def test_a_missing_size_is_that_of_the_file(tmp_path: Path) -> None:
    put(tmp_path, "annotations/a.json", ["a.png"], ["images/a.png"], lambda c: c["images"][0].pop("height"))
    samples, left_out = read(tmp_path)
    assert (samples[0].image.width, samples[0].image.height, left_out) == (64, 48, [])


def test_an_absent_image_is_named_and_the_others_are_exported(tmp_path: Path) -> None:
    put(tmp_path / "in", "annotations/instances_train.json", ["a.png", "b.png"], ["images/a.png"])
    result = CliRunner().invoke(main, ["export", str(tmp_path / "in"), str(tmp_path / "out"), "--format", "coco"])
    assert result.exit_code == 2
    assert "b.png" in result.output
    assert areas(list(formats.read(tmp_path / "out"))) == {"a.png": [225]}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"images": 3, "annotations": []}', "\x00", '[{"images": []}]']
)
def test_what_is_no_coco_is_said_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.json").write_text(text)
    with pytest.raises(DatasetError, match=r"a\.json"):
        list(formats.read(tmp_path))


def test_an_empty_dataset_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "annotations/instances_train.json", [], [])
    assert [finding.code for finding in validate(tmp_path).findings] == ["empty"]


def test_category_ids_start_at_1(tmp_path: Path) -> None:
    export(read(CASES / "coco_iscrowd")[0], tmp_path / "out", "coco")
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [c["id"] for c in content["categories"]] == list(range(1, len(content["categories"]) + 1))
    names = {c["id"]: c["name"] for c in content["categories"]}
    assert {names[a["category_id"]] for a in content["annotations"]} == {"ship"}


def test_polygons_say_what_they_lose(tmp_path: Path) -> None:
    samples, _ = read(CASES / "coco_id_as_text")
    report = export(samples, tmp_path / "out", "coco", options={"polygons": True})
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert all(isinstance(entry["segmentation"][0], list) for entry in content["annotations"])
    assert report.loss == "all 2 masks are kept pixel by pixel"
    assert areas(read(tmp_path / "out")[0]) == areas(samples)
    with pytest.raises(DatasetError, match="it goes with coco"):
        export(samples, tmp_path / "other", "masks", options={"polygons": True})


def test_tiles_of_one_map_file_are_one_scene(tmp_path: Path) -> None:
    put(tmp_path, "instances.json", ["a.png", "b.png"], ["images/a.png", "images/b.png"])
    samples = []
    for sample, x in zip(read(tmp_path)[0], (0, 50), strict=True):
        extra = {"crs": "EPSG:32633", "transform": [0.3, 0.0, 5e5 + 0.3 * x, 0.0, -0.3, 4e6], "window": [x, 0, 64, 48]}
        image = SourceImage(sample.image.file_name, 64, 48, sample.image.location, None, extra)
        samples.append(Sample(image, sample.records))
    export(samples, tmp_path / "out", "coco_jsonl")
    again = list(formats.read(tmp_path / "out"))
    assert [dict(s.image.extra) for s in again] == [dict(s.image.extra) for s in samples]
    assert len({s.image.cut_from for s in again}) == 1
    from dataset_tools.sources import deal_splits

    for seed in range(8):
        assert len(set(deal_splits(lambda: iter(again), shares={"train": 0.5, "test": 0.5}, seed=seed).values())) == 1
