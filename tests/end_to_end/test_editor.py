"""An annotator's work in the real editor: what the backend answers must be seen, kept and stored as it was seen."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_tools import brush_rle, metrics
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.exports import samples_of_task
from dataset_tools.label_studio.import_rules import ImportRules, Problem
from dataset_tools.label_studio.notes import asked, stated
from dataset_tools.synthetic import Scene
from tests.end_to_end.conftest import StartBackend, Studio
from tests.end_to_end.editor import Editor, Mask, open_editor
from tests.end_to_end.projects import Project, create_project
from tests.end_to_end.scenes import airplane_scene, airplanes, building_scene, corners, inner_point

pytestmark = pytest.mark.timeout(1800)

UPPER = "the airplane in the top of the image"
ALL = "all the airplanes"


@pytest.fixture
def scene() -> Scene:
    return airplane_scene()


@pytest.fixture
def project(
    studio: Studio,
    personal_access_token: str,
    start_backend: StartBackend,
    scene: Scene,
) -> Project:
    """A project with two pre-labelled tasks."""
    backend = start_backend(personal_access_token)
    project = create_project(studio, "Airport", scene, UPPER, ALL)
    studio.client.connect_backend(project.id, backend.url)
    studio.client.retrieve_predictions(project.id, list(project.tasks.values()))
    assert sorted(item.task for item in studio.client.predictions(project.id)) == sorted(project.tasks.values())
    return project


@pytest.fixture
def editor(studio: Studio, chromium: Path, artifacts: Path) -> Iterator[Editor]:
    with open_editor(studio, chromium, artifacts) as editor:
        yield editor
        assert editor.problems == []


def _masks(result: list[dict[str, Any]], scene: Scene) -> list[Mask]:
    height, width = scene.image.shape[:2]
    return [brush_rle.decode(region["value"]["rle"], height, width) for region in result]


def _union(masks: list[Mask]) -> Mask:
    return np.asarray(np.logical_or.reduce(masks), np.bool_)


def _share(part: Mask, of: Mask) -> float:
    """The share of ``part`` that lies in ``of``."""
    return float((part & of).sum() / part.sum())


def _exported(studio: Studio, project: Project, task: int, **data: str) -> tuple[dict[str, int], list[str]]:
    """Number of objects under each expression that an export has of a task, and what it says of it."""
    data = {"image": project.image, **data}
    found: list[Problem] = []
    whole = {"id": task, "data": data, "annotations": studio.client.annotations(task)}
    samples = list(samples_of_task(whole, ImportRules(), found))
    records = [record for sample in samples for record in sample.records]
    return {record.expression: len(record.targets) for record in records}, [item.message for item in found]


def _stored(studio: Studio, project: Project, expression: str, scene: Scene) -> list[Mask]:
    (prediction,) = [item for item in studio.client.predictions(project.id) if item.task == project.tasks[expression]]
    return _masks(prediction.result, scene)


def test_prelabels_are_painted_where_the_objects_are(
    studio: Studio, project: Project, scene: Scene, editor: Editor
) -> None:
    editor.open_task(project.id, project.tasks[ALL])
    editor.wait_for_regions(3)
    editor.screenshot("opened")
    # All 25 labels that one clicks with are in sight beside the image; those of the other tools are folded.
    assert editor.label_groups_in_sight() == 1
    assert editor.image_width() > 640
    keys = editor.label_keys()
    assert {key for name, key in keys.items() if not name.startswith("point:")} == {"ctrl+alt+shift+f19"}
    assert not set("behkmopruvw") & {key.lower() for key in keys.values()}
    assert [region["labels"] for region in editor.brush_regions()] == [["airplane"]] * 3
    editor.unselect()
    painted = editor.painted("prelabels", scene.image)
    assert metrics.iou(painted, _union(_stored(studio, project, ALL, scene))) > 0.8
    assert metrics.iou(painted, _union(list(airplanes(scene)))) > 0.6


def test_a_session_of_clicks_a_box_and_a_new_expression(
    studio: Studio, project: Project, scene: Scene, editor: Editor
) -> None:
    left, upper, right = airplanes(scene)
    editor.open_task(project.id, project.tasks[UPPER])
    editor.wait_for_regions(1)
    (prelabel,) = _stored(studio, project, UPPER, scene)
    assert metrics.iou(prelabel, upper) > 0.5
    editor.auto_annotation()

    # A positive click on another airplane, then a negative one beside it. The editor draws its own buttons and the
    # prompts over a suggestion: until it is accepted, only what lies under the object is looked at.
    editor.pick_label("point", "airplane")
    editor.pick_smart_tool("KeyPointTool")
    editor.click(*inner_point(right))
    assert _share(right, editor.painted("positive-click", scene.image)) > 0.7
    editor.pick_label("point", "airplane")
    editor.pick_smart_tool("KeyPointTool")
    editor.click(*corners(right, 12)[0], negative=True)
    assert _share(right, editor.painted("negative-click", scene.image)) > 0.7
    editor.accept()
    editor.unselect()
    after_clicks = editor.painted("clicks-accepted", scene.image)
    assert metrics.iou(after_clicks & ~prelabel, right) > 0.5
    assert _share(left, after_clicks) < 0.1
    assert [region["labels"] for region in editor.brush_regions()] == [["airplane"]] * 2

    # A box around the left one.
    editor.pick_label("box", "airplane")
    editor.pick_smart_tool("RectangleTool")
    editor.drag_box(*corners(left))
    assert _share(left, editor.painted("box", scene.image)) > 0.7
    editor.accept()
    editor.unselect()
    after_box = editor.painted("box-accepted", scene.image)
    assert metrics.iou(after_box & ~after_clicks, left) > 0.5
    assert len(editor.brush_regions()) == 3

    # A new expression.
    editor.prompt("the airplane on the left")
    editor.screenshot("expression")
    editor.accept()
    regions = editor.brush_regions()
    assert [region["labels"] for region in regions] == [["airplane"]] * 4

    editor.unselect()
    shown = editor.painted("expression-accepted", scene.image)
    editor.submit()
    (annotation,) = studio.client.annotations(project.tasks[UPPER])
    stored = _brushes(annotation)
    assert len(stored) == len(regions)
    assert metrics.iou(shown, _union(_masks(stored, scene))) > 0.8
    assert metrics.iou(_union(_masks(stored, scene)), left | upper | right) > 0.6
    assert metrics.iou(_masks(stored[3:], scene)[0], left) > 0.5
    assert {region["type"] for region in annotation["result"]} == {"brushlabels", "textarea"}

    # One region less, updated: what is stored follows.
    editor.delete_region(regions[-1]["id"])
    editor.update()
    editor.screenshot("updated")
    (annotation,) = studio.client.annotations(project.tasks[UPPER])
    assert [region["id"] for region in _brushes(annotation)] == [region["id"] for region in regions[:-1]]


def test_the_editor_says_why_there_is_no_mask_and_offers_candidates(
    studio: Studio, project: Project, scene: Scene, editor: Editor
) -> None:
    client = studio.client
    image = {"image": project.image}
    ambiguous, unknown = client.import_tasks(
        project.id, [{**image, "expression": "the airplane"}, {**image, "expression": "the foobar"}]
    )
    client.retrieve_predictions(project.id, [ambiguous, unknown])
    editor.open_task(project.id, unknown)
    editor.screenshot("note-unknown")
    assert "(unknown-category): " in editor.wait_for_note()
    assert editor.brush_regions() == []
    # Typed: what has no answer says so, the field stays, and the next one is answered.
    editor.auto_annotation()
    field = editor.page.locator(".rs-prompt [data-testid='textarea-input']")
    field.fill("the gizmo")
    with editor.page.expect_response(lambda response: "interactive-annotating" in response.url):
        editor.page.keyboard.press("Enter")
    editor.page.wait_for_function("() => document.querySelector('.rs-note').innerText.includes('gizmo')")
    editor.prompt("the airplane on the left")
    editor.screenshot("typed-twice")
    editor.accept()
    assert len(editor.brush_regions()) == 1
    editor.submit()
    (annotation,) = client.annotations(unknown)
    (typed,) = [region["value"]["text"] for region in annotation["result"] if region["from_name"] == "prompt"]
    assert typed == ["the airplane on the left"], "what has no answer is no longer among the typed expressions"
    samples = list(samples_of_task({"id": unknown, "data": image, "annotations": [annotation]}, ImportRules(), []))
    assert [record.expression for sample in samples for record in sample.records] == ["the airplane on the left"]

    editor.open_task(project.id, ambiguous)
    editor.wait_for_regions(3)
    editor.screenshot("ambiguous")
    assert "(ambiguous): " in editor.wait_for_note()
    kept, *others = editor.brush_regions()
    for other in others:
        editor.delete_region(other["id"])
    editor.submit()
    (annotation,) = client.annotations(ambiguous)
    assert [region["id"] for region in _brushes({"result": stated(annotation["result"])})] == [kept["id"]]


def test_a_rejected_text_leaves_nothing_that_says_it_is_true(
    studio: Studio, project: Project, scene: Scene, editor: Editor
) -> None:
    """A pre-label, an accepted text, a rejected one, a box and a click; then a rejected text as the only words."""
    left, _, right = airplanes(scene)
    client = studio.client
    (wordless,) = client.import_tasks(project.id, [{"image": project.image}])
    editor.open_task(project.id, project.tasks[UPPER])
    editor.wait_for_regions(1)
    editor.auto_annotation()
    editor.prompt("the airplane on the right")
    editor.screenshot("text-suggested")
    editor.reject()
    assert len(editor.brush_regions()) == 1
    editor.screenshot("text-rejected")
    editor.prompt("the airplane on the left")
    editor.accept()
    editor.pick_label("point", "airplane")
    editor.pick_smart_tool("KeyPointTool")
    editor.click(*inner_point(right))
    editor.accept()
    assert len(editor.brush_regions()) == 3
    editor.screenshot("text-rejected-then-clicked")
    editor.submit()
    words, problems = _exported(studio, project, project.tasks[UPPER], expression=UPPER)
    assert words == {UPPER: 1, "the airplane on the left": 1, "": 1}
    assert len(problems) == 1
    assert "has no expression" in problems[0]

    editor.open_task(project.id, wordless)
    editor.auto_annotation()
    editor.prompt("the airplane on the left")
    editor.reject()
    editor.pick_label("point", "airplane")
    editor.pick_smart_tool("KeyPointTool")
    editor.click(*inner_point(right))
    editor.accept()
    editor.submit()
    (annotation,) = client.annotations(wordless)
    assert metrics.iou(_masks(_brushes(annotation), scene)[0], left) == 0
    (typed,) = [region for region in annotation["result"] if region["from_name"] == "prompt"]
    assert typed["meta"]["text"] == [asked("the airplane on the left")]
    words, problems = _exported(studio, project, wordless)
    assert words == {"": 1}
    assert len(problems) == 1

    # The pre-labels deleted, a text in their place rejected: whether there is nothing is not said.
    editor.open_task(project.id, project.tasks[ALL])
    editor.wait_for_regions(3)
    for region in editor.brush_regions():
        editor.delete_region(region["id"])
    editor.auto_annotation()
    editor.prompt("the airplane on the left")
    editor.reject()
    editor.screenshot("all-rejected")
    editor.submit()
    words, problems = _exported(studio, project, project.tasks[ALL], expression=ALL)
    assert words == {}
    assert len(problems) == 1
    assert "the airplane on the left" in problems[0]


def test_clicks_in_a_row_without_waiting_are_all_answered(
    studio: Studio, project: Project, scene: Scene, editor: Editor
) -> None:
    _, _, right = airplanes(scene)
    x, y = inner_point(right)
    beside = corners(right, 12)[0]
    editor.open_task(project.id, project.tasks[UPPER])
    editor.wait_for_regions(1)
    editor.auto_annotation()
    editor.keep_labels_selected()
    editor.pick_label("point", "airplane")
    editor.pick_smart_tool("KeyPointTool")
    editor.clicks_in_a_row((x, y, True), (x + 0.006, y + 0.006, True))
    editor.screenshot("two-clicks-in-a-row")
    editor.clicks_in_a_row((*beside, False), (x - 0.006, y, True), before=2)
    editor.accept()
    *_, found = editor.brush_regions()
    assert found["score"] is not None
    editor.unselect()
    editor.submit()
    (annotation,) = studio.client.annotations(project.tasks[UPPER])
    stored = _brushes(annotation)
    assert len(stored) == 2
    assert any("clicks=4" in line for line in stored[-1]["meta"]["text"])
    assert metrics.iou(_masks(stored[-1:], scene)[0], right) > 0.5


def test_refining_a_prelabel_leaves_one_region(studio: Studio, project: Project, scene: Scene, editor: Editor) -> None:
    _, upper, _ = airplanes(scene)
    task = project.tasks[UPPER]
    editor.open_task(project.id, task)
    editor.wait_for_regions(1)
    editor.auto_annotation()
    editor.pick_label("point", "airplane")
    editor.pick_smart_tool("KeyPointTool")
    editor.click(*inner_point(upper), on_region=True)
    editor.screenshot("refined")
    editor.accept()
    (region,) = editor.brush_regions()
    editor.submit()
    (annotation,) = studio.client.annotations(task)
    (stored,) = _brushes(annotation)
    assert stored["id"] == region["id"]
    assert metrics.iou(_union(_masks([stored], scene)), upper) > 0.5
    # After a reload the editor shows the same one region.
    editor.open_task(project.id, task)
    editor.wait_for_regions(1)
    assert [item["id"] for item in editor.brush_regions()] == [region["id"]]
    editor.unselect()
    assert metrics.iou(editor.painted("refined-reloaded", scene.image), _union(_masks([stored], scene))) > 0.8


def test_a_region_clicked_with_more_like_this_brings_others(
    studio: Studio, project: Project, scene: Scene, editor: Editor
) -> None:
    left, upper, right = airplanes(scene)
    editor.open_task(project.id, project.tasks[UPPER])
    editor.wait_for_regions(1)
    editor.auto_annotation()
    editor.pick_label("point", "more like this")
    editor.pick_smart_tool("KeyPointTool")
    editor.click(*inner_point(upper), on_region=True)
    editor.screenshot("more-like-this")
    editor.accept()
    editor.screenshot("more-like-this-accepted")
    regions = editor.brush_regions()
    assert len(regions) >= 2
    assert {tuple(region["labels"]) for region in regions} == {("airplane",)}
    editor.submit()
    (annotation,) = studio.client.annotations(project.tasks[UPPER])
    assert {region["type"] for region in annotation["result"]} == {"brushlabels"}
    found = _union(_masks(_brushes(annotation), scene))
    assert max(_share(left, found), _share(right, found)) > 0.7


def test_the_score_column_is_filled_and_the_status_page_tells_what_was_asked(
    studio: Studio, personal_access_token: str, start_backend: StartBackend, scene: Scene, editor: Editor
) -> None:
    """As the README has it: connect under a name of one's own, retrieve predictions, look at the Data Manager."""
    backend = start_backend(personal_access_token)
    project = create_project(studio, "Scores", scene, UPPER, "the airplane", "the foobar")
    version = studio.client.connect_backend(project.id, backend.url, title="My model").model_version
    studio.client.retrieve_predictions(project.id, list(project.tasks.values()))
    api = LabelStudio(studio.url, personal_access_token)
    while [row["title"] for row in api.backends(project.id)] != [version]:
        time.sleep(1)
    while api.project(project.id)["model_version"] != version:
        time.sleep(1)
    tab = api.put_tab(project.id, "By score", {"ordering": ["-tasks:predictions_score"]})
    rows = api.call("GET", f"/api/tasks?view={tab}&page=1&page_size=3")["tasks"]
    shown = {row["id"]: row["predictions_score"] for row in rows}
    assert shown == pytest.approx({item.task: item.score for item in studio.client.predictions(project.id)})
    assert shown[project.tasks[UPPER]] > 0
    editor.page.goto(f"{studio.url}/projects/{project.id}/data?tab={tab}", wait_until="domcontentloaded")
    editor.page.get_by_text("the foobar").first.wait_for()
    editor.screenshot("score-column")

    editor.page.goto(f"{backend.url}/", wait_until="domcontentloaded")
    text = editor.page.inner_text("body")
    editor.screenshot("status-page")
    assert str(version) in text
    assert re.search(r"ambiguous\s+1", text)
    assert re.search(r"unknown-category\s+1", text)
    assert f"{project.id}" in text
    assert re.search(r"pre-label\s+3\s+1 objects", text)
    for secret in (personal_access_token, "the airplane", "foobar", project.image):
        assert secret not in editor.page.content()
    editor.page.set_viewport_size({"width": 420, "height": 800})
    assert editor.page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth + 1")


@pytest.mark.parametrize(
    ("config", "label", "expression"),
    [
        ("buildings", "building", "all the buildings"),
        ("minimal", "object", "all the buildings"),
        ("compact", "building", "all the buildings"),
    ],
)
def test_the_other_labeling_configs_take_prelabels_and_clicks(
    studio: Studio,
    personal_access_token: str,
    start_backend: StartBackend,
    editor: Editor,
    config: str,
    label: str,
    expression: str,
) -> None:
    scene = building_scene()
    project = create_project(studio, f"With {config}", scene, expression, config=config)
    studio.client.connect_backend(project.id, start_backend(personal_access_token).url)
    studio.client.retrieve_predictions(project.id, list(project.tasks.values()))
    stored = _stored(studio, project, expression, scene)
    assert stored
    editor.open_task(project.id, project.tasks[expression])
    editor.wait_for_regions(len(stored))
    editor.unselect()
    painted = editor.painted(f"{config}-prelabels", scene.image)
    assert _share(_union(stored), painted) > 0.8
    assert _share(~_union(stored), painted) < 0.25  # enlarged on the screen, textures differ a little everywhere
    for region in editor.brush_regions():
        editor.delete_region(region["id"])
    editor.auto_annotation()
    house = max((item.mask for item in scene.objects if item.category == "building"), key=lambda mask: int(mask.sum()))
    editor.pick_label("point", label)
    editor.pick_smart_tool("KeyPointTool")
    editor.click(*inner_point(house))
    editor.accept()
    editor.unselect()
    assert [region["labels"] for region in editor.brush_regions()] == [[label]]
    assert _share(house, editor.painted(f"{config}-click", scene.image)) > 0.5


def _brushes(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    return [region for region in annotation["result"] if region["type"] == "brushlabels"]
