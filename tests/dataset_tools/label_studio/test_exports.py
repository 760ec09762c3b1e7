"""Reading Label Studio exports: what counts, whose annotation, which words, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dataset_tools import brush_rle, export
from dataset_tools.checks.validate import check_sample
from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.exports import read_tasks, samples_of
from dataset_tools.label_studio.import_rules import ImportRules, Problem
from dataset_tools.records import Sample
from dataset_tools.sources import open_source

HEIGHT, WIDTH = 60, 80
Mask = npt.NDArray[np.bool_]


def square(x: int, y: int, side: int = 10) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def region(mask: Mask, label: str = "ship", **changes: Any) -> dict[str, Any]:
    result = {
        "id": f"r{mask.sum()}-{np.argmax(mask)}", "from_name": "mask", "to_name": "image", "type": "brushlabels",
        "origin": "prediction", "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
        "value": {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": [label]},
        "meta": {"text": ["pslg model=compact-0a1b2c3d clicks=2 score=0.910"]},
    }  # fmt: skip
    return {**result, **changes}


def text(words: str, identity: str = "t1") -> dict[str, Any]:
    return {"id": identity, "from_name": "prompt", "to_name": "image", "type": "textarea", "value": {"text": [words]}}


def found_for(words: str) -> dict[str, Any]:
    return {"text": ["pslg model=compact-0a1b2c3d clicks=0 score=0.910", f"expression: {words}"]}


def annotation(*results: dict[str, Any], **changes: Any) -> dict[str, Any]:
    base = {"id": 5, "completed_by": 3, "result": list(results), "was_cancelled": False, "ground_truth": False}
    return {**base, "lead_time": 12.5, "updated_at": "2026-01-01T00:00:00Z", **changes}


def task(*annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    values = {"image": "/data/upload/1/0a1b2c3d-port.png", "expression": "the ship on the left", **data}
    return {"id": 9, "data": values, "annotations": list(annotations), "drafts": [], "predictions": []}


def read(tmp_path: Path, *tasks: dict[str, Any], **rules: Any) -> tuple[list[Sample], list[Problem]]:
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    problems: list[Problem] = []
    return list(samples_of(read_tasks(tmp_path / "export.json"), ImportRules(**rules), problems)), problems


def test_accepted_region_becomes_a_record_with_its_provenance(tmp_path: Path) -> None:
    (sample,), problems = read(tmp_path, task(annotation(region(square(4, 5)))))
    (record,) = sample.records
    assert problems == []
    assert (sample.image.file_name, sample.image.width, sample.image.height) == ("port.png", WIDTH, HEIGHT)
    assert (record.expression, record.category) == ("the ship on the left", "ship")
    assert np.array_equal(sample.union(record), square(4, 5))
    origin = record.provenance
    assert (origin.task, origin.annotation, origin.annotator, origin.lead_time) == (9, 5, 3, 12.5)
    assert (origin.model_version, origin.origin, origin.clicks, origin.score) == (
        "compact-0a1b2c3d", "prediction", 2, 0.91
    )  # fmt: skip


def test_smart_clicks_the_stray_second_result_skips_and_drafts_do_not_count(tmp_path: Path) -> None:
    stray = region(square(40, 5), type="keypointlabels")
    stray["value"]["keypointlabels"] = ["ship"]
    click = {**region(square(1, 1)), "type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": ["ship"]}}
    good = task(annotation(region(square(4, 5)), stray, click))
    skipped = task(annotation(region(square(4, 5)), was_cancelled=True))
    draft = {**task(), "drafts": [{"result": [region(square(4, 5))]}]}
    empty = task(annotation(region(np.zeros((HEIGHT, WIDTH), bool))))
    samples, problems = read(tmp_path, good, skipped, draft, empty)
    assert len(samples) == 1
    assert np.array_equal(samples[0].union(samples[0].records[0]), square(4, 5))
    (problem,) = problems
    assert problem.message == "it was submitted without an object, but not empty: it holds brushlabels alone"


def test_polygons_and_rotated_rectangles(tmp_path: Path) -> None:
    corners = [[10, 10], [40, 10], [40, 50], [10, 50]]
    polygon = region(square(0, 0), type="polygonlabels", value={"points": corners, "polygonlabels": ["ship"]})
    box = {"x": 50, "y": 50, "width": 12.5, "height": 10, "rotation": 90, "rectanglelabels": ["building"]}
    rectangle = region(square(0, 0), type="rectanglelabels", value=box)
    (sample,), _ = read(tmp_path, task(annotation(polygon, rectangle), expression=["the ship", "the building"]))
    ship, building = (sample.union(record) for record in sample.records)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[6:30, 8:32] = True
    assert (ship & expected).sum() / (ship | expected).sum() > 0.9
    # A quarter turn clockwise about its upper left corner (40, 30): 10 wide, 6 high -> 6 to the left, 10 down.
    turned = np.zeros((HEIGHT, WIDTH), bool)
    turned[30:40, 34:40] = True
    assert (building & turned).sum() / (building | turned).sum() > 0.7


@pytest.mark.parametrize(
    ("results", "data", "expected"),
    [
        ([region(square(4, 5))], {}, ["the ship on the left"]),
        ([region(square(4, 5)), text("the red ship")], {}, ["the ship on the left"]),
        ([region(square(4, 5)), text("the lake")], {}, ["the ship on the left"]),
        ([region(square(4, 5), "water"), text("the lake")], {"expression": ""}, ["the lake"]),
        ([region(square(4, 5)), text("the bridge")], {}, ["the ship on the left"]),
        ([region(square(4, 5)), text("my ship", region(square(4, 5))["id"])], {}, ["my ship"]),
        ([region(square(4, 5), meta={"text": ["expression: the tug"]})], {}, ["the tug"]),
        (
            [region(square(4, 5)), region(square(30, 5), "building")],
            {"expression": ["the building", "the ship"]},
            ["the ship", "the building"],
        ),
        (
            [
                region(square(4, 5), meta=found_for("the ship on the right")),
                region(square(30, 5), meta=found_for("the tug")),
            ],
            {"expression": ["the ship on the left", "the ship on the right"]},
            ["the ship on the right", "the tug"],
        ),
        ([region(square(4, 5), "object")], {"expression": "the tennis court"}, ["the tennis court"]),
    ],
)
def test_which_words_a_region_answers(
    tmp_path: Path, results: list[dict[str, Any]], data: dict[str, Any], expected: list[str]
) -> None:
    (sample,), problems = read(tmp_path, task(annotation(*results), **data))
    assert [record.expression for record in sample.records] == expected
    assert problems == []


def test_label_object_takes_its_category_from_the_words(tmp_path: Path) -> None:
    (sample,), _ = read(tmp_path, task(annotation(region(square(4, 5), "object")), expression="the tennis court"))
    assert sample.records[0].category == "tenniscourt"


def test_several_regions_of_one_expression_are_several_targets(tmp_path: Path) -> None:
    changed = region(square(30, 5), origin="manual", meta={"text": ["pslg model=m clicks=5 score=0.5"]})
    (sample,), _ = read(tmp_path, task(annotation(region(square(4, 5)), changed), expression="all the ships"))
    (record,) = sample.records
    assert len(record.targets) == 2
    assert np.array_equal(sample.union(record), square(4, 5) | square(30, 5))
    assert (record.provenance.origin, record.provenance.clicks, record.provenance.score) == ("manual", 7, 0.5)


def test_region_without_words_is_reported_and_kept_as_an_object(tmp_path: Path) -> None:
    (sample,), problems = read(tmp_path, task(annotation(region(square(4, 5))), expression=""))
    (record,) = sample.records
    assert (record.expression, record.category, len(record.targets)) == ("", "ship", 1)
    (problem,) = problems
    assert problem.message.startswith("region 1 (ship) has no expression: 'expression' is empty in its data")
    assert problem.kind == "wordless"


def test_words_stay_with_the_region_that_they_were_found_for(tmp_path: Path) -> None:
    """Pre-label, accepted text, rejected text, box, click, and a click that refined the pre-label."""
    prelabel = region(square(4, 5), meta=found_for("the ship on the left"))
    typed = region(square(20, 5), meta=found_for("the ship in the middle"))
    boxed = region(square(40, 5), meta={"text": ["pslg model=compact-0a1b2c3d clicks=0 score=0.9"]})
    clicked = region(square(60, 5), origin="manual")
    texts = (text("the ship in the middle", "t1"), text("the ship at the pier", "t2"))
    (sample,), problems = read(tmp_path, task(annotation(prelabel, typed, boxed, clicked, *texts)))
    assert {r.expression: len(r.targets) for r in sample.records} == {
        "the ship on the left": 1, "the ship in the middle": 1, "": 2
    }  # fmt: skip
    assert [problem.message.split(" has")[0] for problem in problems] == ["region 3 (ship)", "region 4 (ship)"]


def test_a_note_of_the_annotator_does_not_cost_a_region_its_words(tmp_path: Path) -> None:
    noted = region(square(4, 5), meta={"text": ["\n".join([*found_for("the tug")["text"], "blurred"])]})
    (sample,), _ = read(tmp_path, task(annotation(noted)))
    assert sample.records[0].expression == "the tug"
    assert sample.records[0].provenance.model_version == "compact-0a1b2c3d"


def test_two_hand_made_regions_of_one_expression_are_not_guessed_apart(tmp_path: Path) -> None:
    drawn = [region(square(x, 5), origin="manual", meta={}) for x in (4, 30)]
    (sample,), problems = read(tmp_path, task(annotation(*drawn)))
    assert [(r.expression, len(r.targets)) for r in sample.records] == [("", 2)]
    assert len(problems) == 2
    assert "a per-region text says what it is" in problems[0].message


A, B, C = (
    annotation(region(square(x, 5)), id=i, updated_at=f"2026-01-0{4 - i}T00:00:00Z", ground_truth=i == 2)
    for i, x in ((1, 4), (2, 5), (3, 50))
)


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [("latest", [1]), ("ground-truth", [2]), ("all", [1, 2, 3]), ("agreement", [])],
)
def test_several_annotators(tmp_path: Path, rule: str, chosen: list[int]) -> None:
    samples, problems = read(tmp_path, task(A, B, C), annotators=rule)
    assert [record.provenance.annotation for sample in samples for record in sample.records] == chosen
    assert [problem.message for problem in problems] == (
        ["its 3 annotations agree by 0.41 IoU at best, less than 0.8"] if rule == "agreement" else []
    )


def test_agreement_takes_the_middle_one(tmp_path: Path) -> None:
    near = annotation(region(square(6, 5)), id=4)
    (sample,), _ = read(tmp_path, task(A, B, near), annotators="agreement", agreement=0.7)
    assert sample.records[0].provenance.annotation == 2


def test_images_are_found_by_path_or_name_and_never_outside(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "1").mkdir(parents=True)
    (tmp_path / "secret.png").touch()
    for name in ("port.png", "1/0a1b2c3d-dock.png", "a b.png"):
        (images / name).touch()
    values = ["/data/upload/1/0a1b2c3d-port.png", "/data/upload/1/0a1b2c3d-dock.png",
              "/data/local-files/?d=rs%2Fa%20b.png", "../secret.png", "https://example.org/c.png"]  # fmt: skip
    samples, _ = read(tmp_path, *(task(annotation(region(square(4, 5))), image=v) for v in values), images=images)
    assert [sample.image.location for sample in samples] == [
        str(images / "port.png"), str(images / "1/0a1b2c3d-dock.png"), str(images / "a b.png"), "../secret.png",
        "https://example.org/c.png",
    ]  # fmt: skip
    assert samples[2].image.file_name == "a b.png"


def test_annotators_can_be_hashed(tmp_path: Path) -> None:
    (one,), _ = read(tmp_path, task(annotation(region(square(4, 5)))), hash_annotators="key")
    (two,), _ = read(tmp_path, task(annotation(region(square(4, 5)), completed_by={"id": 3})), hash_annotators="key")
    (other,), _ = read(tmp_path, task(annotation(region(square(4, 5)))), hash_annotators="another")
    ids = [sample.records[0].provenance.annotator for sample in (one, two, other)]
    assert ids[0] == ids[1] != ids[2]
    assert isinstance(ids[0], str)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (task(annotation(region(square(4, 5), image_rotation=90))), "rotated by 90"),
        (task(annotation(region(square(4, 5), original_width=None))), "no original_width"),
        (task(annotation(region(square(4, 5), original_width=81))), "19200 words"),
        (task(annotation(region(square(4, 5), value={"brushlabels": ["ship"]}))), "no 'rle'"),
        (task(annotation(region(square(4, 5))), image=3), "holds no image"),
        (task({"id": 1}), "JSON-MIN"),
    ],
)
def test_a_broken_task_is_reported_and_the_others_are_read(tmp_path: Path, broken: Any, message: str) -> None:
    samples, problems = read(tmp_path, broken, task(annotation(region(square(4, 5)))))
    assert len(samples) == 1
    (problem,) = problems
    assert message in problem.message


@pytest.mark.parametrize(
    ("content", "message"), [('[{"id": 1}]', "entry 0 is no task"), ("[{", "not valid JSON"), ("", "not valid JSON")]
)
def test_a_broken_file_is_explained(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        list(samples_of(read_tasks(tmp_path / "x.json"), ImportRules(), []))


def test_annotation_recorded_from_label_studio(shared_data: Path, tmp_path: Path) -> None:
    capture = shared_data.parent / "label_studio" / "captures" / "webhook_ANNOTATION_CREATED.json"
    body = json.loads(capture.read_text())["request_body"]
    samples, problems = read(tmp_path, {**body["task"], "annotations": [body["annotation"]]})
    assert [record.category for sample in samples for record in sample.records]
    assert problems == []


def test_masks_of_different_prompts_under_one_expression_are_said(tmp_path: Path) -> None:
    found = region(square(4, 5), meta={"text": ["pslg model=m clicks=0 score=0.9", "expression: all the ships"]})
    drawn = {**region(square(40, 5), origin="manual"), "id": "other"}
    data = {"expression": "all the ships"}
    for regions, mixed in (([found], None), ([found, drawn], True)):
        one = task(annotation(*regions))
        one["data"] |= data
        (sample,), _ = read(tmp_path, one)
        (record,) = sample.records
        assert record.provenance.mixed is mixed
        assert [f.code for f in check_sample(sample) if f.code == "expression-mixed"] == ["expression-mixed"] * bool(
            mixed
        )


def test_nouns_that_annotations_teach_are_read_in_all_tasks(tmp_path: Path) -> None:
    said = ["the leftmost gazoo", "the gazoo", "gazoo at the top"]
    by_hand: dict[str, Any] = {"meta": {}, "origin": "manual"}
    drawn = [task(annotation(region(square(5, 5), **by_hand)), expression=words) for words in said]
    nothing = task(annotation(), expression="the gazoo on the bridge")
    both = region(square(5, 5), **by_hand), region(square(40, 30), "harbor", **by_hand)
    two = task(annotation(*both), expression=["the harbor", "the lower gazoo"])
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "port.png")
    (tmp_path / "export.json").write_text(json.dumps([*drawn, nothing, two]))
    problems: list[Problem] = []
    samples = list(open_source(tmp_path / "export.json", None, ImportRules(images=tmp_path), problems)())
    records = {record.expression: record for sample in samples for record in sample.records}
    assert records["the gazoo on the bridge"].category == "ship", "an absent one too"
    assert records["the lower gazoo"].category == "ship", "told from the harbor's words by its label"
    assert records["the lower gazoo"].provenance.guessed == ("gazoo: ship",)
    assert not records["the lower gazoo"].provenance.unread


@pytest.mark.parametrize(
    "bad",
    [
        task(annotation(region(square(0, 0))), image="/data/upload/1/a\0b.png"),
        task(annotation(region(square(0, 0))), image="/data/upload/1/" + "x" * 300 + ".png"),
        task(annotation(region(square(0, 0), original_width=-5))),
        task(annotation(region(square(0, 0), original_width=300_000, original_height=300_000))),
        task(annotation(region(square(0, 0), original_width=10**15))),
        task({**annotation(), "result": [7, "x", None, [[]], region(square(0, 0))]}),
        task({**annotation(), "result": {"a": 1}}),
        task({**annotation(region(square(0, 0))), "lead_time": [[1]]}),
        {**task(annotation(region(square(0, 0)))), "id": [1]},
    ],
    ids=["NUL", "long name", "negative", "84 GiB", "10^15", "not objects", "no list", "odd time", "odd id"],
)
def test_one_odd_task_never_costs_the_others_theirs(tmp_path: Path, bad: dict[str, Any]) -> None:
    good = task(annotation(region(square(20, 20))))
    good["data"]["image"] = "/data/upload/1/good.png"
    (tmp_path / "export.json").write_text(json.dumps([bad, good]))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "good.png")
    problems: list[Problem] = []
    source = open_source(tmp_path / "export.json", None, ImportRules(images=tmp_path), problems)
    report = export.export(source(), tmp_path / "out", "refer")
    assert report.images == 1
    assert problems or report.failed
    assert list((tmp_path / "out/images").rglob("good*"))
