"""Projects as people really have them: what is exported of each, or what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from dataset_tools import formats
from dataset_tools.cli import dataset
from dataset_tools.errors import DatasetError
from dataset_tools.records import Sample
from tests.conftest import REPOSITORY

CASES = REPOSITORY / "tests/data/cases"


class Exported(NamedTuple):
    status: int
    said: str
    samples: list[Sample]

    def areas(self) -> dict[str, list[int]]:
        return {s.image.file_name: [s.area(r) for r in s.records] for s in self.samples}


def export(source: Path, out: Path, format_name: str = "coco_jsonl", *more: str) -> Exported:
    words = ["export", str(source), str(out), "--format", format_name, "--images", str(CASES / "uploads"), *more]
    result = CliRunner().invoke(dataset, words)
    assert isinstance(result.exception, DatasetError | SystemExit | None), result.output
    samples = list(formats.read(out, format_name)) if out.is_dir() else []
    said = f"{result.output}{result.exception if isinstance(result.exception, DatasetError) else ''}"
    return Exported(result.exit_code, said, samples)


def case(name: str, out: Path, format_name: str = "coco_jsonl", *more: str) -> Exported:
    return export(CASES / f"{name}.json", out, format_name, *more)


def test_each_mask_is_on_its_own_image(tmp_path: Path) -> None:
    found = case("two_images_export", tmp_path / "out")
    assert (found.status, found.areas()) == (0, {"a.png": [225], "b.png": [450]})
    assert {record.expression for sample in found.samples for record in sample.records} == {"the ship"}


def test_an_image_that_cannot_be_told_is_left_out_and_said(tmp_path: Path) -> None:
    (task,) = json.loads((CASES / "two_images_export.json").read_text())
    task["data"] = {"pre": task["data"]["before"], "post": task["data"]["after"], "expression": "the ship"}
    good = json.loads((CASES / "absent_confirmed.json").read_text())[0]
    (tmp_path / "x.json").write_text(json.dumps([task, {**good, "id": 2}]))
    found = export(tmp_path / "x.json", tmp_path / "out")
    assert found.status == 2
    assert "'before' belong to cannot be told: its data has post, pre" in found.said
    assert found.areas() == {"a.png": [225]}


def test_brush_and_box_of_one_label_are_one_object(tmp_path: Path) -> None:
    found = case("brush_and_box_of_one_object", tmp_path / "out", "refer")
    assert (found.status, found.areas()) == (0, {"a.png": [225]})


def test_a_lone_rectangle_is_a_drawn_mask_and_what_else_it_may_be_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = case("smart_box_left_over", tmp_path / "out")
    assert found.status == 0
    (message,) = caplog.messages
    assert "rectangles of 'box' are taken as drawn masks; if that is a smart tool" in message


def test_a_confirmed_absence_is_exported_where_the_format_holds_it(tmp_path: Path) -> None:
    found = case("absent_confirmed", tmp_path / "out")
    records = {s.image.file_name: [(r.expression, len(r.targets)) for r in s.records] for s in found.samples}
    assert (found.status, records) == (0, {"a.png": [("the ship", 1)], "b.png": [("the bridge", 0)]})
    refer = case("absent_confirmed", tmp_path / "refer", "refer")
    assert "1 expressions for absent objects stay behind" in refer.said
    case("absent_confirmed", tmp_path / "coco", "coco")
    images = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.png", "b.png"]


def test_an_absence_in_an_image_that_is_not_there_is_said(tmp_path: Path) -> None:
    tasks = json.loads((CASES / "absent_confirmed.json").read_text())
    tasks[1]["data"]["image"] = "/data/upload/1/abcdef12-gone.png"
    (tmp_path / "x.json").write_text(json.dumps(tasks))
    found = export(tmp_path / "x.json", tmp_path / "out")
    assert found.status == 2
    assert "task 2: it was submitted empty, and its image is needed" in found.said


def test_one_image_in_two_tasks_is_one_image_with_both_objects(tmp_path: Path) -> None:
    case("one_image_two_tasks", tmp_path / "out", "coco")
    coco = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png"]
    assert sorted(annotation["area"] for annotation in coco["annotations"]) == [225, 450]
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == ["a.png"]
    found = case("one_image_two_tasks", tmp_path / "jsonl")
    assert [r.expression for s in found.samples for r in s.records] == ["the ship", "the larger ship"]


def test_a_copy_under_another_name_is_the_same_image(tmp_path: Path) -> None:
    tasks = json.loads((CASES / "one_image_two_tasks.json").read_text())
    tasks[1]["data"]["image"] = "/data/upload/1/abcdef12-copy.png"
    (tmp_path / "x.json").write_text(json.dumps(tasks))
    for name in ("a.png", "copy.png"):
        (tmp_path / name).write_bytes((CASES / "uploads/a.png").read_bytes())
    found = export(tmp_path / "x.json", tmp_path / "out", "coco_jsonl", "--images", str(tmp_path))
    assert found.areas() == {"a.png": [225, 450]}


@pytest.mark.parametrize("tasks", [1, 2])
def test_an_object_outlined_twice_is_one_object_and_each_expression_keeps_its_mask(tmp_path: Path, tasks: int) -> None:
    first, second = (outlined(number, side) for number, side in ((1, 20), (2, 21)))
    second["annotations"][0]["result"][0]["meta"] = {"text": ["expression: the vessel"]}
    if tasks == 1:
        first["annotations"][0]["result"] += second["annotations"][0]["result"]
    (tmp_path / "x.json").write_text(json.dumps([first, second][:tasks]))
    refer = export(tmp_path / "x.json", tmp_path / "refer", "refer")
    areas = {r.expression: s.area(r) for s in refer.samples for r in s.records}
    assert areas == {"the ship": 400, "the vessel": 441}
    coco = export(tmp_path / "x.json", tmp_path / "coco", "coco")
    assert coco.areas() == {"a.png": [441]}
    both = export(tmp_path / "x.json", tmp_path / "both")
    assert {r.expression: s.area(r) for s in both.samples for r in s.records} == {"the ship": 441, "the vessel": 441}


def outlined(number: int, side: int) -> dict[str, Any]:
    """A task on a.png whose ship is a polygon of ``side`` pixels."""
    task: dict[str, Any] = json.loads((CASES / "absent_confirmed.json").read_text())[0]
    corners = [(5, 5), (5 + side, 5), (5 + side, 5 + side), (5, 5 + side)]
    points = [[100 * x / 64, 100 * y / 48] for x, y in corners]
    (region,) = task["annotations"][0]["result"]
    region |= {"id": f"p{number}", "type": "polygonlabels", "value": {"points": points, "polygonlabels": ["ship"]}}
    region["meta"] = {"text": ["expression: the ship"]}
    return {**task, "id": number}


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("ellipse_only_beside_good", 190),
        ("brush_plus_labels_pair_beside_good", 225),
        ("completions_beside_good", 225),
    ],
)
def test_what_other_controls_and_old_exports_hold_is_read(tmp_path: Path, name: str, area: int) -> None:
    found = case(name, tmp_path / "out")
    assert found.status == 0, found.said
    areas = found.areas()
    assert areas["a.png"] == [225]
    assert areas["b.png"] == [pytest.approx(area, rel=0.05)]
    assert {record.category for sample in found.samples for record in sample.records} == {"ship"}


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    tasks = json.loads((CASES / "ellipse_only_beside_good.json").read_text())
    (region,) = tasks[1]["annotations"][0]["result"]
    region |= {"type": "bitmask", "value": {"imageDataURL": "data:image/png;base64,AA=="}}
    (tmp_path / "x.json").write_text(json.dumps(tasks))
    found = export(tmp_path / "x.json", tmp_path / "out")
    assert found.status == 2
    assert "left out: task 2: its regions of type bitmask are not read" in found.said


def test_objects_without_words_are_kept_by_coco_and_left_out_and_counted_elsewhere(tmp_path: Path) -> None:
    reason = "region 1 (ship) has no expression: no 'expression' in its data ['caption', 'image']"
    assert case("all_left_out", tmp_path / "coco", "coco").status == 0
    jsonl = case("all_left_out", tmp_path / "jsonl")
    assert (jsonl.status, [r.expression for s in jsonl.samples for r in s.records]) == (2, [""])
    assert reason in jsonl.said
    refer = case("all_left_out", tmp_path / "refer", "refer")
    assert refer.status not in (0, 2)
    assert "nothing was exported" in refer.said
    assert reason in refer.said
    assert "--expression-key" in refer.said
    assert not (tmp_path / "refer").exists()
    mixed = [*json.loads((CASES / "all_left_out.json").read_text()), outlined(2, 20)]
    (tmp_path / "x.json").write_text(json.dumps(mixed))
    some = export(tmp_path / "x.json", tmp_path / "some", "refer")
    assert some.status == 2
    assert "1 objects without words stay behind: refer holds expressions only" in some.said


def test_a_file_that_is_no_list_of_tasks_is_named_so(tmp_path: Path) -> None:
    found = case("object_not_list", tmp_path / "out")
    assert "no list of tasks" in found.said


def test_a_percent_sign_in_a_name_is_decoded_once(tmp_path: Path) -> None:
    found = case("percent_in_name", tmp_path / "out")
    assert found.status == 0, found.said
    assert [area for areas in found.areas().values() for area in areas] == [225]


def test_annotations_without_results_are_a_reason(tmp_path: Path) -> None:
    found = case("annotation_ids_only", tmp_path / "out")
    assert "task 1: its annotations are no objects but [11]" in found.said


def one_task(**changes: Any) -> dict[str, Any]:
    """The good task on a.png with other values of its region."""
    task: dict[str, Any] = json.loads((CASES / "absent_confirmed.json").read_text())[0]
    task["annotations"][0]["result"][0] |= changes
    return task


def put(folder: Path, *tasks: dict[str, Any]) -> Path:
    (folder / "x.json").write_text(json.dumps(tasks))
    return folder / "x.json"


def test_a_project_of_which_nothing_was_submitted_is_said_to_be_one(tmp_path: Path) -> None:
    skipped, draft = one_task(), one_task()
    skipped["annotations"][0]["was_cancelled"] = True
    draft |= {"drafts": draft["annotations"], "annotations": []}
    found = export(put(tmp_path, skipped, draft), tmp_path / "out")
    assert "its 2 tasks hold no accepted object and no confirmed absence" in found.said


def test_a_lone_label_is_a_label_and_of_several_the_first_counts_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    value = one_task()["annotations"][0]["result"][0]["value"]
    several = one_task(value={**value, "brushlabels": ["ship", "harbor"]})
    several["data"]["image"] = "/data/upload/1/abcdef12-b.png"
    found = export(put(tmp_path, one_task(value={**value, "brushlabels": "ship"}), several), tmp_path / "out")
    assert found.areas() == {"a.png": [225], "b.png": [225]}
    assert {record.category for sample in found.samples for record in sample.records} == {"ship"}
    assert "regions with several labels (ship, harbor) are taken under the first" in caplog.text


def test_an_outline_of_a_type_nobody_knows_is_said_and_a_choice_for_a_region_is_none(tmp_path: Path) -> None:
    task = one_task()
    (region,) = task["annotations"][0]["result"]
    task["annotations"][0]["result"] += [
        {**region, "type": "choices", "value": {**region["value"], "choices": ["sure"]}},
        {**region, "id": "c", "type": "curvelabels", "value": {"points": [[1, 1], [9, 1], [9, 9]]}},
    ]
    found = export(put(tmp_path, task), tmp_path / "out")
    assert (found.status, found.areas()) == (2, {"a.png": [225]})
    assert "its regions of type curvelabels are not read" in found.said


@pytest.mark.parametrize("item", [None, "1", 5])
def test_of_several_images_under_one_tag_a_region_must_say_on_which_it_lies(tmp_path: Path, item: Any) -> None:
    task = one_task(**({} if item is None else {"item_index": item}))
    task["data"]["image"] = [f"/data/upload/1/abcdef12-{name}.png" for name in "ab"]
    found = export(put(tmp_path, task), tmp_path / "out")
    assert "its data has 2 images under 'image', and its regions" in found.said
    assert found.samples == []


def test_an_image_that_is_an_object_in_the_data_is_named_by_its_path(tmp_path: Path) -> None:
    task = one_task()
    task["data"] = {"photo": {"url": task["data"]["image"]}, "meta": {"expression": "the ship"}}
    more = ("--image-key", "photo.url", "--expression-key", "meta.expression")
    found = export(put(tmp_path, task), tmp_path / "out", "coco_jsonl", *more)
    assert (found.status, found.areas()) == (0, {"a.png": [225]})
    assert [record.expression for sample in found.samples for record in sample.records] == ["the ship"]


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + (CASES / "one_image_two_tasks.json").read_bytes())
    assert export(tmp_path / "x.json", tmp_path / "out").areas() == {"a.png": [225, 450]}


def test_an_image_without_objects_stays_in_coco(tmp_path: Path) -> None:
    export(CASES / "coco_image_without_objects", tmp_path / "out", "coco")
    images = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.png", "b.png"]
