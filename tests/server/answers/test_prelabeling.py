"""Batches: labels, abstentions, failures, the deadline, what is kept, and what is pushed."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from backend.pipeline import PslgSam
from backend.pipeline.grounding import Grounder
from backend.pipeline.grounding.vlm import load_vlm
from backend.pipeline.types import Box, Grounding, GroundingResult, Image
from backend.server.editor.labeling_config import parse_labeling_config
from backend.server.editor.prompts import read_task
from backend.server.protocol import PredictRequest, Task, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from backend.turns import Priority
from dataset_tools import brush_rle
from tests.dataset_tools.label_studio.test_client import LEGACY
from tests.dataset_tools.test_image_files import huge_png_header
from tests.server.conftest import LABEL_CONFIG, Reply, Site, batch, encode, interactive, png, task
from tests.server.tiny import VERSION, WordGrounder, tiny_pipeline
from tests.vlm_server import Asked, Said, vlm_server

VESSELS = '<Label value="Vessels" predicted_values="ship"/><Label value="building"/>'
CLICK = {
    "id": "p1", "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True,
    "original_width": 80, "original_height": 60, "image_rotation": 0,
    "value": {"x": 50.0, "y": 50.0, "width": 0.3, "keypointlabels": ["ship"]},
}  # fmt: skip
EMPTY = {"result": [], "score": 0.0, "model_version": VERSION}


def predict(service: LabelingService, *tasks: dict[str, Any], label_config: str = LABEL_CONFIG) -> list[Any]:
    return service.predict(validate(PredictRequest, batch(*tasks, label_config=label_config)))


def labels(slot: Any) -> list[str]:
    return [region["value"][region["type"]][0] for region in slot["result"]]


def config(control: str) -> str:
    return f'<View><Image name="image" value="$image"/><Header value="$expression"/>{control}</View>'


def test_masks_have_the_images_natural_size(service: LabelingService, site: Site) -> None:
    (slot,) = predict(service, task(1, site.put("/a.png", png(123, 77))))
    (region,) = slot["result"]
    assert (region["original_width"], region["original_height"]) == (123, 77)
    assert brush_rle.decode(region["value"]["rle"], 77, 123).any()
    assert region["meta"]["text"][0].startswith(f"pslg model={VERSION} clicks=0 score=")


def test_several_objects_and_several_expressions(service: LabelingService, site: Site) -> None:
    url = site.put("/a.png", png())
    slot, listed = predict(service, task(1, url, "two ships"), task(2, url, ["the building", "two ships"]))
    assert labels(slot) == ["ship", "ship"]
    assert labels(listed) == ["building", "ship", "ship"]
    words = [region["meta"]["text"][1] for region in listed["result"]]
    assert words == ["expression: the building", "expression: two ships", "expression: two ships"]


def test_ids_are_fresh_although_the_answer_is_kept(service: LabelingService, site: Site) -> None:
    found = task(1, site.put("/a.png", png()))
    first, second = predict(service, found)[0]["result"][0], predict(service, found)[0]["result"][0]
    assert first["id"] != second["id"]
    assert first["value"] == second["value"]


def brush(labels: str) -> str:
    return f'<BrushLabels name="m" toName="image">{labels}</BrushLabels>'


@pytest.mark.parametrize(
    ("expression", "label_config", "expected"),
    [
        ("the ship", LABEL_CONFIG, ["ship"]),
        ("the harbor", LABEL_CONFIG, []),  # known, but the config has no label for it
        ("the house", LABEL_CONFIG, ["building"]),
        ("the boat", config(brush(VESSELS)), ["Vessels"]),
        ("the ship", config(brush('<Label value="building"/>')), []),
        ("the ship", config(brush('<Label value="object"/>')), ["object"]),
    ],
)
def test_the_label_comes_from_the_expressions_category(
    service: LabelingService, site: Site, expression: str, label_config: str, expected: list[str]
) -> None:
    (slot,) = predict(service, task(1, site.put("/a.png", png()), expression), label_config=label_config)
    assert labels(slot) == expected
    if not expected:
        assert slot == EMPTY


class NamelessGrounder(WordGrounder):
    """Like LQVG: boxes without a category, for any expression."""

    def ground(self, image: Image, expression: str, *, key: str | None = None, labels: object = ()) -> GroundingResult:
        found = super().ground(image, "building")
        groundings = tuple(type(item)(item.box, item.score) for item in found.groundings)
        return GroundingResult(groundings)


@pytest.fixture
def nameless(settings: Settings) -> Iterator[LabelingService]:
    def load() -> PslgSam:
        pipeline = tiny_pipeline()
        pipeline.grounder = NamelessGrounder()
        return pipeline

    service = LabelingService(settings, load)
    service.start()
    assert service.model.wait(60)
    yield service
    service.close()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"expression": "the thing on the left", "category": "Ships"}, ["ship"]),
        ({"expression": "the thing on the left", "category": "water"}, ["water"]),
        ({"expression": "the thing on the left", "category": "lagoon"}, []),
        ({"expression": "the thing on the left"}, []),
        ({"expression": "the building", "category": "ship"}, ["building"]),
    ],
)
def test_a_grounder_without_categories_takes_expression_then_field(
    nameless: LabelingService, site: Site, data: dict[str, Any], expected: list[str]
) -> None:
    found = {"id": 1, "data": {"image": site.put("/a.png", png()), **data}}
    assert labels(predict(nameless, found)[0]) == expected


def test_a_grounder_without_categories_takes_the_only_label(nameless: LabelingService, site: Site) -> None:
    only = config('<BrushLabels name="m" toName="image"><Label value="lagoon"/></BrushLabels>')
    assert labels(predict(nameless, task(1, site.put("/a.png", png()), "the thing"), label_config=only)[0]) == [
        "lagoon"
    ]


def test_a_missing_label_is_logged_with_the_task(
    service: LabelingService, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    predict(service, task(4711, site.put("/a.png", png()), "the harbor"))
    assert "task 4711" in caplog.text
    assert "'harbor'" in caplog.text
    assert "building, ship, water" in caplog.text


@pytest.mark.parametrize(
    "expression", ["", "   ", None, 5, [], "建筑物在左边", "x" * 5000, "the lagoon", "the absent ship"]
)
def test_what_has_no_answer_is_stored_as_empty(service: LabelingService, site: Site, expression: Any) -> None:
    assert predict(service, task(1, site.put("/a.png", png()), expression)) == [EMPTY]


def test_a_very_long_expression_with_a_category_is_answered(service: LabelingService, site: Site) -> None:
    assert labels(predict(service, task(1, site.put("/a.png", png()), "the ship " + "x" * 5000))[0]) == ["ship"]


def test_failures_leave_a_slot_and_the_other_tasks_unharmed(
    service: LabelingService, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    good = site.put("/a.png", png())
    tasks = [
        task(1, good),
        task(2, site.put("/broken.png", png()[:100])),
        task(3, site.url + "/missing.png"),
        task(4, site.put("/huge.png", huge_png_header())),
        {"id": 5, "data": {"expression": "the building"}},
        {"id": 6, "data": None},
        task(7, "file:///etc/passwd"),
        task(8, good, "the ship"),
    ]
    slots = predict(service, *tasks)
    assert [bool(slot) for slot in slots] == [True, False, False, False, False, False, False, True]
    assert slots[1:7] == [[]] * 6
    for number in range(2, 8):
        assert f"task {number}: not computed" in caplog.text


def test_an_error_of_the_model_costs_one_slot_only(settings: Settings, site: Site) -> None:
    class Fragile(WordGrounder):
        def ground(
            self, image: Image, expression: str, *, key: str | None = None, labels: object = ()
        ) -> GroundingResult:
            if "ship" in expression:
                raise RuntimeError("out of memory")
            return super().ground(image, expression)

    def load() -> PslgSam:
        pipeline = tiny_pipeline()
        pipeline.grounder = Fragile()
        return pipeline

    service = LabelingService(settings, load)
    service.start()
    assert service.model.wait(60)
    url = site.put("/a.png", png())
    slots = predict(service, task(1, url, "the ship"), task(2, url))
    assert slots[0] == []
    assert labels(slots[1]) == ["building"]
    service.close()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2000, 3)])
def test_odd_image_sizes_are_answered(service: LabelingService, site: Site, size: tuple[int, int]) -> None:
    from PIL import Image as PillowImage

    (slot,) = predict(service, task(1, site.put("/a.png", encode(PillowImage.new("RGB", size, "red")))))
    assert isinstance(slot, dict)
    for region in slot["result"]:
        assert (region["original_width"], region["original_height"]) == size


def test_polygons_and_boxes_where_the_config_has_them(service: LabelingService, site: Site) -> None:
    controls = "".join(
        f'<{tag} name="{tag}" toName="image"><Label value="building"/></{tag}>'
        for tag in ("PolygonLabels", "RectangleLabels", "BrushLabels")
    )
    (slot,) = predict(service, task(1, site.put("/a.png", png())), label_config=config(controls))
    assert {region["type"] for region in slot["result"]} == {"polygonlabels", "rectanglelabels", "brushlabels"}


class Gate(WordGrounder):
    """Holds back ships until it is opened, and counts what it was asked."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.asked: list[str] = []

    def ground(self, image: Image, expression: str, *, key: str | None = None, labels: object = ()) -> GroundingResult:
        self.asked.append(expression)
        if "ship" in expression:
            self.opened.wait(60)
        return super().ground(image, expression)


def gated(settings: Settings, gate: Grounder) -> LabelingService:
    def load() -> PslgSam:
        pipeline = tiny_pipeline()
        pipeline.grounder = gate
        return pipeline

    service = LabelingService(settings, load)
    service.start()
    assert service.model.wait(60)
    return service


@pytest.mark.parametrize("here", [False, True])
def test_a_language_model_that_thinks_holds_up_nobody(settings: Settings, site: Site, here: bool) -> None:
    """While it is waited for, an expression that needs no model and a click are answered; a service is asked about a
    second image meanwhile, a model in this process is not.
    """
    answer, ship = threading.Event(), '[{"bbox_2d": [100, 100, 900, 900], "label": "ship"}]'

    def say(asked: Asked) -> Said:
        answer.wait(60)
        return Said(ship)

    with vlm_server() as server:
        server.say = say
        model = load_vlm(url=SecretStr(server.url), model="m", coordinates="thousandths")
        model.elsewhere = not here
        service = gated(settings.model_copy(update={"prelabel_fetchers": 8, "deadline": 120.0}), model)
        pool = ThreadPoolExecutor(2)
        url = site.put("/a.png", png())
        waiting = [
            pool.submit(predict, service, task(1, url, "the ship")),
            pool.submit(predict, service, task(2, site.put("/b.png", png(seed=1)), "the ship")),
        ]
        wait_for(lambda: len(server.asked) == (1 if here else 2))
        local = tiny_pipeline()
        compact = service.prelabeler.batch(
            local, [validate(Task, task(3, url, "the building"))], parse_labeling_config(LABEL_CONFIG)
        )
        assert labels(compact[0]) == ["building"]
        (clicked,) = service.predict(validate(PredictRequest, interactive(task(1, url), [CLICK], LABEL_CONFIG)))
        assert labels(clicked) == ["ship"]
        assert not any(one.done() for one in waiting)
        answer.set()
        assert [labels(one.result(60)[0]) for one in waiting] == [["ship"], ["ship"]]
        service.close()
        pool.shutdown()


def test_the_deadline_returns_what_there_is_and_the_rest_is_kept(settings: Settings, site: Site) -> None:
    gate = Gate()
    service = gated(settings.model_copy(update={"deadline": 2.0}), gate)
    url = site.put("/a.png", png())
    wait_for(lambda: predict(service, task(1, url))[0])  # kept from now on, however slow this machine is
    ready, late = predict(service, task(1, url), task(2, url, "the ship"))
    assert labels(ready) == ["building"]
    assert late == []
    gate.opened.set()
    wait_for(lambda: predict(service, task(2, url, "the ship"))[0])
    assert labels(predict(service, task(2, url, "the ship"))[0]) == ["ship"]
    assert gate.asked.count("the ship") == 1  # computed once, for both requests
    service.close()


def test_who_opens_a_task_is_next_however_long_a_batch_is(settings: Settings, site: Site) -> None:
    """Although its images come from the same host, and although the task is itself the last one of the batch."""
    gate = Gate()
    service = gated(settings.model_copy(update={"deadline": 0.1, "prelabel_fetchers": 4}), gate)
    batch = [task(number, site.put(f"/{number}.png", png(seed=number)), f"the ship {number}") for number in range(8)]
    assert not any(predict(service, *batch))
    wait_for(lambda: len(gate.asked) == 1)  # the first holds up all others
    opened = [batch[7], task(20, site.put("/other.png", png(seed=9)), "two buildings")]
    assert not any(predict(service, one)[0] for one in opened)
    wait_for(lambda: len(service.prelabeler.expressions._compute._waiting) == 3)  # both, and one of the batch
    gate.opened.set()
    wait_for(lambda: not service.prelabeler.expressions.waiting and all(predict(service, *batch)))
    assert gate.asked[0] in ("the ship 0", "the ship 1")  # whichever was fetched first
    assert gate.asked[1:3] == ["the ship 7", "two buildings"]
    assert len(gate.asked) == 9  # what was opened is not computed once more for the batch
    service.close()


def test_a_label_that_came_meanwhile_shares_no_answer_with_what_was_asked_without_it(
    settings: Settings, site: Site
) -> None:
    gate = Gate()
    service = gated(settings.model_copy(update={"deadline": 0.5}), gate)
    found = task(1, site.put("/a.png", png()), "the ship near the solar panel")
    assert predict(service, found) == [[]]  # being computed
    more = LABEL_CONFIG.replace('<Label value="water"/>', '<Label value="water"/><Label value="solar panel"/>')
    assert predict(service, found, label_config=more) == [[]]
    gate.opened.set()
    wait_for(lambda: predict(service, found, label_config=more)[0])
    assert gate.asked.count("the ship near the solar panel") == 2
    service.close()


def test_computed_answers_survive_a_restart(settings: Settings, site: Site) -> None:
    url = site.put("/a.png", png())
    first = gated(settings, Gate())
    expected = predict(first, task(1, url, "two buildings"))
    first.close()
    gate = Gate()
    second = gated(settings, gate)
    again = predict(second, task(1, url, "two buildings"))
    assert gate.asked == []
    assert [region["value"] for region in again[0]["result"]] == [region["value"] for region in expected[0]["result"]]
    assert again[0]["score"] == expected[0]["score"]
    second.close()


def test_another_model_version_or_expression_is_computed_anew(settings: Settings, site: Site) -> None:
    url = site.put("/a.png", png())
    first = gated(settings, Gate())
    predict(first, task(1, url))
    first.close()
    other = LabelingService(settings, lambda: tiny_pipeline(version="tiny-ffffffff"))
    other.start()
    assert other.model.wait(60)
    assert predict(other, task(1, url))[0]["model_version"] == "tiny-ffffffff"
    assert other.versions() == ["tiny-ffffffff", VERSION]
    other.close()


def pushing(settings: Settings, site: Site, stored: list[dict[str, Any]]) -> Settings:
    """Settings with a Label Studio at ``site`` that keeps what is pushed in ``stored``; sets ``site.pushed``."""

    def store(_: dict[str, str], body: bytes) -> Reply:
        stored.append(json.loads(body))
        return Reply(b"{}", 201)

    site.replies["/api/predictions/"] = store
    site.put("/api/tasks/2/", b'{"id": 2, "project": 2, "data": {}}')
    site.put("/api/ml?project=2", json.dumps([{"id": 1, "model_version": VERSION}]).encode())
    site.replies["/api/predictions/?task=2"] = lambda _, __: Reply(json.dumps(stored).encode())
    return settings.model_copy(
        update={"deadline": 1.0, "label_studio_url": site.url, "label_studio_api_key": SecretStr(LEGACY)}
    )


def wait_for(condition: Any) -> None:
    pause = threading.Event()
    for _ in range(2400):
        if condition():
            return
        pause.wait(0.05)
    pytest.fail("it did not happen within 120 s")


def test_what_came_late_is_pushed(settings: Settings, site: Site) -> None:
    gate, stored = Gate(), list[dict[str, Any]]()
    service = gated(pushing(settings, site, stored), gate)
    assert predict(service, task(2, site.put("/a.png", png()), "the ship")) == [[]]
    gate.opened.set()
    wait_for(lambda: stored)
    assert stored[0]["task"] == 2
    assert stored[0]["model_version"] == VERSION
    assert labels(stored[0]) == ["ship"]
    service.close()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/api/tasks/2/", b'{"id": 2, "project": 5, "data": {}}'),
        ("/api/ml?project=2", b'[{"id": 1, "model_version": "someone-else"}]'),
        ("/api/ml?project=2", b"[]"),
    ],
)
def test_nothing_is_pushed_to_tasks_that_are_not_ours(
    settings: Settings, site: Site, path: str, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    gate, stored = Gate(), list[dict[str, Any]]()
    service = gated(pushing(settings, site, stored), gate)
    site.put(path, answer)
    assert predict(service, task(2, site.put("/a.png", png()), "the ship")) == [[]]
    gate.opened.set()
    wait_for(lambda: "but not pushed" in caplog.text)
    assert stored == []
    assert "project 2" in caplog.text
    service.close()


def test_what_label_studio_asked_for_again_is_not_pushed_too(settings: Settings, site: Site) -> None:
    gate, stored = Gate(), list[dict[str, Any]]()
    patient = pushing(settings, site, stored).model_copy(update={"deadline": 8.0})
    service = gated(patient, gate)
    url = site.put("/a.png", png())
    assert predict(service, task(2, url, "the ship")) == [[]]
    asked_again: list[Any] = []
    thread = threading.Thread(target=lambda: asked_again.extend(predict(service, task(2, url, "the ship"))))
    thread.start()
    wait_for(lambda: not service.prelabeler.late.waiting(2))
    gate.opened.set()
    thread.join()
    assert labels(asked_again[0]) == ["ship"]
    predict(service, task(3, url, "the building"))
    assert stored == []
    service.close()


def test_pixels_decide_not_the_address(service: LabelingService, site: Site) -> None:
    same = [task(1, site.put("/a.png", png(seed=3))), task(2, site.put("/b.png", png(seed=3)))]
    first, second = predict(service, *same)
    assert first["result"][0]["value"] == second["result"][0]["value"]
    text = service.render_metrics().decode()
    assert 'pslg_prelabel_cache_total{result="miss"}' in text


def test_the_reason_of_an_abstention_is_logged(
    service: LabelingService, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    predict(service, task(12, site.put("/a.png", png()), "the absent ship"))
    assert "task 12: no mask for “the absent ship” (absent): there is none" in caplog.text


def test_a_tiny_mask_is_cleaned(service: LabelingService, site: Site) -> None:
    (slot,) = predict(service, task(1, site.put("/a.png", png(200, 200))))
    for region in slot["result"]:
        mask = brush_rle.decode(region["value"]["rle"], 200, 200)
        assert np.count_nonzero(mask) >= 4


def test_state_is_kept_in_the_state_folder(service: LabelingService, settings: Settings, site: Site) -> None:
    predict(service, task(1, site.put("/a.png", png())))
    assert (Path(settings.state_dir) / "server.sqlite3").is_file()
    assert list((Path(settings.state_dir) / "embeddings").glob("*/*.embedding"))


class CrowdGrounder(WordGrounder):
    """Finds eight boxes of rising certainty, whatever is asked for."""

    def ground(self, image: Image, expression: str, *, key: str | None = None, labels: object = ()) -> GroundingResult:
        height, width = image.shape[:2]
        boxes = [Box(width * n / 8, 0, width * (n + 1) / 8, height) for n in range(8)]
        return GroundingResult(tuple(Grounding(box, 0.1 + 0.1 * n, "ship") for n, box in enumerate(boxes)))


@pytest.mark.parametrize(("most", "deadline", "found"), [(3, 80.0, 3), (100, 80.0, 8), (100, 1e-6, 1)])
def test_only_the_most_certain_objects_go_to_label_studio_and_the_log_says_so(
    settings: Settings, site: Site, caplog: pytest.LogCaptureFixture, most: int, deadline: float, found: int
) -> None:
    def load() -> PslgSam:
        pipeline = tiny_pipeline()
        pipeline.grounder = CrowdGrounder()
        return pipeline

    service = LabelingService(settings.model_copy(update={"max_objects": most, "deadline": deadline}), load)
    service.start()
    assert service.model.wait(60)
    labeling = parse_labeling_config(LABEL_CONFIG)
    query = read_task(Task.model_validate(task(1, site.put("/a.png", png()), "all the ships")), labeling)
    pipeline = service.model.pipeline()
    with caplog.at_level(logging.WARNING):
        prediction = service.prelabeler.answer(pipeline, query, labeling)
        (answer,) = service.prelabeler.expressions.answers(pipeline, query, labeling, Priority.EDITOR)
    assert (len(answer), answer.left_out) == (found, 8 - found)
    assert len(prediction["result"]) == found
    certain = [0.1 + 0.1 * n for n in range(8)]
    if deadline > 1:
        assert [item.scores["grounding"] for item in answer] == certain[8 - found :]
    assert ("8 objects found" in caplog.text) == (found < 8)
    kept = service.prelabeler.expressions.kept_answers(pipeline, query, labeling)
    assert (kept is not None) == (deadline > 1)  # what time cut off is computed when somebody asks again
    if kept is not None:
        assert kept[0].left_out == 8 - found
    service.cache.most = 2  # the server is started with another PSLG_MAX_OBJECTS
    assert service.prelabeler.expressions.kept_answers(pipeline, query, labeling) is None
    service.close()
