"""What the annotator is told where an expression has no answer: in the prediction, in the task, and as candidates."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backend.pipeline import PslgSam
from backend.pipeline.types import Abstention, Box, Grounding, GroundingResult, Image
from backend.server.editor.labeling_config import parse_labeling_config
from backend.server.editor.prompts import read_prompts
from backend.server.protocol import PredictRequest, Task, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools.errors import UnavailableError
from dataset_tools.label_studio.notes import NOTE, answered, asked, is_note
from tests.dataset_tools.label_studio.test_client import LEGACY
from tests.server.conftest import LABEL_CONFIG, Reply, Site, batch, interactive, png, task
from tests.server.tiny import WordGrounder, tiny_pipeline

WITH_NOTE = LABEL_CONFIG.replace(
    "<BrushLabels", f'<TextArea name="{NOTE}" toName="image" editable="false"/><BrushLabels'
)
ALIKE = "5 objects fit 'the ship' alike: say which, e.g. 'the upper ship'."


class Doubter(WordGrounder):
    """Finds five ships alike."""

    def ground(self, image: Image, expression: str, *, key: str | None = None, labels: object = ()) -> GroundingResult:
        if "ship" not in expression:
            return super().ground(image, expression, key=key)
        height, width = image.shape[:2]
        boxes = [Box(width * n / 5, height * 0.2, width * (n + 1) / 5, height * 0.8) for n in range(5)]
        found = tuple(Grounding(box, 0.9, "ship") for box in boxes)
        return GroundingResult((), Abstention("ambiguous", ALIKE, found))


def _doubting() -> PslgSam:
    pipeline = tiny_pipeline()
    pipeline.grounder = Doubter()
    return pipeline


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., LabelingService]]:
    started: list[LabelingService] = []

    def start(**more: Any) -> LabelingService:
        settings = Settings(
            state_dir=tmp_path / "state", image_hosts=("127.0.0.1",), model_threads=1, speck_area=4, **more
        )
        service = LabelingService(settings, _doubting)
        service.start()
        assert service.model.wait(60)
        started.append(service)
        return service

    yield start
    for service in started:
        service.close()


def predict(service: LabelingService, *tasks: dict[str, Any], label_config: str = WITH_NOTE) -> list[Any]:
    return service.predict(validate(PredictRequest, batch(*tasks, label_config=label_config)))


def note_of(slot: Any) -> list[str]:
    return [line for region in slot["result"] if is_note(region) for line in region["value"]["text"]]


def test_the_prediction_says_why_there_is_no_object(start: Callable[..., LabelingService], site: Site) -> None:
    service, url = start(candidates=0), site.put("/a.png", png())
    unknown, absent, both = predict(
        service, task(1, url, "the foobar"), task(2, url, "absent building"), task(3, url, ["the building", "the ship"])
    )
    assert [slot["score"] for slot in (unknown, absent)] == [0.0, 0.0]
    assert note_of(unknown) == ["“the foobar” (unknown-category): no category word in 'the foobar'"]
    assert note_of(absent) == ["“absent building” (absent): there is none"]
    assert note_of(both) == [f"“the ship” (ambiguous): {ALIKE}"]
    assert len(answered(both["result"])) == 1


def test_a_label_that_is_missing_is_said_too(start: Callable[..., LabelingService], site: Site) -> None:
    (slot,) = predict(start(), task(1, site.put("/a.png", png()), "the dam"))
    assert note_of(slot) == [
        "“the dam” (no-label): the labeling config has no label for 'dam' (labels: building, ship, water)"
    ]


def test_without_a_field_for_it_the_prediction_stays_empty(start: Callable[..., LabelingService], site: Site) -> None:
    (slot,) = predict(start(), task(1, site.put("/a.png", png()), "the foobar"), label_config=LABEL_CONFIG)
    assert slot["result"] == []


def test_candidates_are_marked_and_limited(start: Callable[..., LabelingService], site: Site) -> None:
    url = site.put("/a.png", png())
    service = start(candidates=3)
    (slot,) = predict(service, task(1, url, "the ship"))
    marks = [region["meta"]["text"][2] for region in slot["result"] if not is_note(region)]
    assert marks == [f"pslg candidate {number} of 3" for number in (1, 2, 3)]
    assert slot["score"] == 0.0
    assert answered(slot["result"]) == []
    assert note_of(slot)[0].endswith("3 candidates are shown: keep the one that is meant, delete the rest.")
    # The same from the cache; nothing after the setting is turned off, although an answer is kept.
    again = predict(service, task(1, url, "the ship"))[0]
    assert len(again["result"]) == 4
    assert len(predict(start(candidates=0), task(1, url, "the ship"))[0]["result"]) == 1


def test_the_pipeline_itself_answers_nothing_where_it_offers_candidates(site: Site) -> None:
    import numpy as np

    answer = _doubting().prelabel(np.zeros((60, 80, 3), np.uint8), "the ship", candidates=2)
    assert len(answer) == 0
    assert answer.score == 0.0
    assert answer.abstained is not None


def test_a_typed_expression_that_is_not_answered_says_so(start: Callable[..., LabelingService], site: Site) -> None:
    text = {"id": "t", "type": "textarea", "from_name": "prompt", "to_name": "image", "value": {"text": ["the foobar"]}}
    body = {**batch(task(1, site.put("/a.png", png()))), "label_config": WITH_NOTE}
    body["params"] = {"context": {"result": [text]}}
    (answer,) = start().predict(validate(PredictRequest, body))
    assert note_of(answer) == ["“the foobar” (unknown-category): no category word in 'the foobar'"]


def test_of_several_typed_expressions_the_newest_is_outlined_and_all_are_noted(
    start: Callable[..., LabelingService], site: Site
) -> None:
    texts = ["two buildings", "the foobar", "the building"]
    typed = {"id": "t", "type": "textarea", "from_name": "prompt", "to_name": "image", "value": {"text": texts}}
    body = {**batch(task(1, site.put("/a.png", png()))), "label_config": WITH_NOTE}
    body["params"] = {"context": {"result": [typed]}}
    answer: Any = start().predict(validate(PredictRequest, body))[0]
    (region,) = answered(answer["result"])
    assert region["meta"]["text"][1] == "expression: the building"
    assert [line.split(":")[0] for line in note_of(answer)] == ["“the foobar” (unknown-category)"]


@pytest.mark.parametrize("with_note", [True, False])
def test_a_refused_text_leaves_the_field_where_a_note_says_why(
    start: Callable[..., LabelingService], site: Site, with_note: bool
) -> None:
    texts = ["the building", "the foobar", "the ship", "the dam"]  # the ship is ambiguous and has candidates
    typed = {"id": "t", "type": "textarea", "from_name": "prompt", "to_name": "image", "value": {"text": texts}}
    config = WITH_NOTE if with_note else LABEL_CONFIG
    body = {**batch(task(1, site.put("/a.png", png()))), "label_config": config}
    body["params"] = {"context": {"result": [typed]}}
    answer: Any = start().predict(validate(PredictRequest, body))[0]
    (kept,) = [region for region in answer["result"] if region["from_name"] == "prompt"]
    shown = ["the building", "the ship"] if with_note else texts
    # The field says what was asked for: what no region carries in the end was rejected.
    marks = "\n".join(map(asked, ["the building", "the ship"]))
    assert kept == {**typed, "value": {"text": shown}, "meta": {"text": [marks]}}
    assert answered(answer["result"]) == []


def test_the_note_is_no_expression(site: Site) -> None:
    config = parse_labeling_config(WITH_NOTE.replace('name="prompt"', 'name="words"'))
    said = {"id": "n", "type": "textarea", "from_name": NOTE, "to_name": "image", "value": {"text": ["the ship"]}}
    typed = {**said, "from_name": "words", "value": {"text": ["the building"]}}
    assert config.has_note
    assert read_prompts([said, typed], Task(), config, (60, 80)).texts == ("the building",)
    only = (
        '<View><Image name="image" value="$image"/><Header value="$pslg_note"/><Text name="t" value="$query"/></View>'
    )
    assert parse_labeling_config(only).expression_key == "query"


def test_the_task_gets_its_note_and_loses_it_when_answered(
    start: Callable[..., LabelingService], site: Site, other_site: Site
) -> None:
    for number in (1, 2, 3):
        other_site.put(f"/api/tasks/{number}/", b"{}")
    service = start(label_studio_url=other_site.url, label_studio_api_key=SecretStr(LEGACY))
    url = site.put("/a.png", png())
    answered_now = task(2, url, "the building")
    answered_now["data"][NOTE] = "“the building” (absent): none"
    predict(service, task(1, url, "the foobar"), answered_now, task(3, url, "the building"))
    until = time.monotonic() + 20
    while len(other_site.seen) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    sent = {path: json.loads(body)["data"] for _, path, _, body in other_site.seen}
    assert sent == {
        "/api/tasks/1/": {
            "image": url,
            "expression": "the foobar",
            NOTE: "“the foobar” (unknown-category): no category word in 'the foobar'",
        },
        "/api/tasks/2/": {"image": url, "expression": "the building", NOTE: ""},
    }


def test_a_label_studio_that_refuses_the_note_costs_no_answer(
    start: Callable[..., LabelingService], site: Site, other_site: Site
) -> None:
    other_site.replies["/api/tasks/1/"] = Reply(b'{"detail": "no"}', 403)
    service = start(label_studio_url=other_site.url, label_studio_api_key=SecretStr(LEGACY))
    (slot,) = predict(service, task(1, site.put("/a.png", png()), "the foobar"))
    assert note_of(slot)


def click(url: str, label_config: str) -> dict[str, Any]:
    value = {"x": 50, "y": 50, "width": 0.3, "keypointlabels": ["building"]}
    item = {
        "id": "c", "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True,
        "original_width": 80, "original_height": 60, "value": value,
    }  # fmt: skip
    return interactive(task(1, url), [item], label_config)


def test_an_overload_is_told_in_the_editor(start: Callable[..., LabelingService], site: Site) -> None:
    service, url = start(click_queue=1), site.put("/a.png", png())
    with service._queue.turn("another task", [b"x"]):
        slot: Any = service.predict(validate(PredictRequest, click(url, WITH_NOTE)))[0]
        assert not answered(slot["result"])
        (line,) = note_of(slot)
        assert line.startswith("“click” (busy): 1 clicks are waiting already")
        with pytest.raises(UnavailableError):  # without a field for the note: 503
            service.predict(validate(PredictRequest, click(url, LABEL_CONFIG)))
    slot = service.predict(validate(PredictRequest, click(url, WITH_NOTE)))[0]
    assert len(answered(slot["result"])) == 1
    assert not note_of(slot)
