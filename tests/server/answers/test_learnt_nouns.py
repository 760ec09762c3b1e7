"""What annotators call things is learnt from what they accept, and read by server, warm and prelabel --tasks."""

from __future__ import annotations

from typing import Any

import pytest

from backend.batch.predictor import TaskPredictor
from backend.labeling_configs import read_config
from backend.server.protocol import PredictRequest, Task, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools.label_studio.notes import answered
from dataset_tools.label_studio.regions import read_info
from tests.learning.annotations.test_store import annotation
from tests.server.conftest import LABEL_CONFIG, Site, batch, png, task
from tests.server.tiny import tiny_pipeline

PROJECT = {"id": 2, "created_at": "2026-11-23T09:29:15Z", "updated_at": "2026-11-23T09:29:15Z"}


def accept(service: LabelingService, url: str, *expressions: str, label: str = "ship") -> None:
    """Webhooks of hand-drawn objects, one for each expression."""
    for number, expression in enumerate(expressions, start=100):
        outline = {
            "id": f"drawn{number}", "type": "rectanglelabels", "from_name": "box", "to_name": "image",
            "origin": "manual", "original_width": 80, "original_height": 60, "image_rotation": 0,
            "value": {"x": 10, "y": 10, "width": 20, "height": 20, "rectanglelabels": [label]},
        }  # fmt: skip
        body = annotation(number, number, outline)
        about = {**task(body["task"], url, expression), "updated_at": body["updated_at"]}
        event = {"action": "ANNOTATION_CREATED", "project": PROJECT, "task": about, "annotation": body}
        service.record_event(event)
    service.store.refresh()


def answer(service: LabelingService, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    slots = service.predict(validate(PredictRequest, batch(*tasks)))
    return [dict(slot) for slot in slots if isinstance(slot, dict)]


WORDS = ("the leftmost flattop", "the flattop", "flattop in the corner")


def test_a_noun_of_the_project_finds_its_category(service: LabelingService, site: Site) -> None:
    url = site.put("/a.png", png())
    (before,) = answer(service, task(1, url, "the left Flattop"))
    assert before["result"] == []

    accept(service, url, *WORDS)
    (after,) = answer(service, task(1, url, "the left Flattop"))
    (region,) = after["result"]
    info = read_info(region, {})
    assert info.label == "ship"
    assert info.expression == "the left Flattop", "the words stay those of the annotator"
    assert info.reading.guessed == ("flattop: ship",)
    assert info.reading.unread == ()


def test_warm_and_text_prompts_know_it_too(service: LabelingService, site: Site) -> None:
    url = site.put("/a.png", png())
    accept(service, url, *WORDS)
    config = service.labeling_config(LABEL_CONFIG, 2)
    prediction, notes = service.prelabeler.warm(
        service.model.pipeline(), Task.model_validate(task(1, url, "the flattop")), config
    )
    assert (len(prediction["result"]), notes) == (1, ())
    other = service.labeling_config(LABEL_CONFIG, 3)
    prediction, notes = service.prelabeler.warm(
        service.model.pipeline(), Task.model_validate(task(1, url, "the flattop")), other
    )
    assert prediction["result"] == [], "another project has other words"
    assert [note.reason for note in notes] == ["unknown-category"]


def test_deleted_annotations_teach_nothing(service: LabelingService, site: Site) -> None:
    url = site.put("/a.png", png())
    accept(service, url, *WORDS)
    assert service.nouns.of(2) == {"flattop": "ship"}
    service.record_event({"action": "ANNOTATIONS_DELETED", "project": PROJECT, "annotations": [{"id": 101}]})
    service.store.refresh()
    assert service.nouns.of(2) == {}


def test_prelabelled_files_are_read_with_the_words_of_their_project(
    service: LabelingService, settings: Settings, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.put("/a.png", png())
    accept(service, url, *WORDS)
    monkeypatch.setattr("backend.server.service.load_pipeline", lambda _config: tiny_pipeline())
    predictor = TaskPredictor(settings, read_config("compact"))
    try:
        known, note = predictor.predict({**task(1, url, "the flattop"), "project": 2})
        unknown, other_note = predictor.predict(task(1, url, "the flattop"))
    finally:
        predictor.close()
    assert (len(known["result"]), note) == (1, "")
    assert answered(unknown["result"]) == []
    assert "unknown-category" in other_note
