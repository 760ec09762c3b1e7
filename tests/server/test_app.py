"""The HTTP side: every endpoint's form and every status, with a tiny real pipeline behind it."""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from label_studio_sdk.label_interface import LabelInterface

from backend.pipeline import PslgSam
from backend.server.app import BodyBudget, create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools.errors import UnavailableError, WeightsError
from tests.pipeline.segmentation.scarce import make_scarce
from tests.server.conftest import LABEL_CONFIG, Site, batch, interactive, png, task
from tests.server.editor.test_prompts import CAPTURES
from tests.server.tiny import VERSION, tiny_pipeline

WEBHOOKS = sorted(path.stem for path in CAPTURES.glob("webhook_*.json"))


def test_health_setup_and_versions(client: FlaskClient) -> None:
    assert client.get("/health").get_json() == {"status": "UP", "model_class": "PslgSam"}
    body = json.loads((CAPTURES / "setup.json").read_text())["request_body"]
    assert client.post("/setup", json=body).get_json() == {"model_version": VERSION}
    assert client.get("/versions").get_json() == {"versions": [VERSION]}


def test_a_captured_batch_gets_one_slot_per_task(client: FlaskClient, site: Site) -> None:
    captured = json.loads((CAPTURES / "predict_batch.json").read_text())["request_body"]
    for number, found in enumerate(captured["tasks"]):
        found["data"]["image"] = site.put(f"/{number}.png", png(seed=number))
    results = client.post("/predict", json={**captured, "label_config": LABEL_CONFIG}).get_json()["results"]
    assert [len(slot["result"]) for slot in results] == [1, 0, 0]  # water and road are no categories
    assert {slot["model_version"] for slot in results} == {VERSION}
    assert LabelInterface(LABEL_CONFIG).validate_prediction(results[0], return_errors=True) == []


def test_an_interactive_answer_is_one_prediction_with_a_region(client: FlaskClient, site: Site) -> None:
    captured = json.loads((CAPTURES / "interactive_keypoint_positive.json").read_text())["request_body"]
    captured["tasks"][0]["data"]["image"] = site.put("/a.png", png(800, 600))
    (answer,) = client.post("/predict", json=captured).get_json()["results"]
    (region,) = answer["result"]
    assert region["value"]["brushlabels"] == ["building"]
    assert (region["original_width"], region["original_height"]) == (800, 600)
    assert answer["model_version"] == VERSION
    assert LabelInterface(captured["label_config"]).validate_prediction(answer, return_errors=True) == []


@pytest.mark.parametrize("result", [None, []])
def test_an_empty_context_gets_an_empty_prediction(client: FlaskClient, site: Site, result: Any) -> None:
    body = interactive(task(1, site.put("/a.png", png())), result)
    assert client.post("/predict", json=body).get_json()["results"] == [
        {"result": [], "score": 0.0, "model_version": VERSION}
    ]


@pytest.mark.parametrize("name", WEBHOOKS)
def test_webhooks_are_stored_before_they_are_acknowledged(
    client: FlaskClient, service: LabelingService, name: str
) -> None:
    body = json.loads((CAPTURES / f"{name}.json").read_text())["request_body"]
    assert client.post("/webhook", json=body).status_code == 201
    (event,) = service.events.since()
    assert event.action == body["action"]
    assert event.project == body["project"]["id"]
    assert "token" not in event.body["project"]
    assert {key: value for key, value in event.body.items() if key != "project"} == {
        key: value for key, value in body.items() if key != "project"
    }


def test_events_survive_a_restart(client: FlaskClient, settings: Settings) -> None:
    client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 3}})
    again = LabelingService(settings, tiny_pipeline)
    assert [event.action for event in again.events.since()] == ["START_TRAINING"]
    again.close()


@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
@pytest.mark.parametrize(
    ("data", "kind", "part"),
    [
        (b"{", "application/json", "not valid JSON"),
        (b"\xff\xfe", "application/json", "not valid JSON"),
        (b"[]", "application/json", "JSON object"),
        (b"{}", "text/plain", "content type"),
        (b"{}", None, "content type"),
    ],
)
def test_malformed_bodies_get_a_clear_400(
    client: FlaskClient, path: str, data: bytes, kind: str | None, part: str
) -> None:
    response = client.post(path, data=data, content_type=kind)
    assert response.status_code == 400
    assert part in response.get_json()["error"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "tasks"),
        ({"tasks": 3, "label_config": LABEL_CONFIG}, "tasks"),
        ({"tasks": [], "label_config": None}, "label_config"),
        ({"tasks": [], "label_config": "<View>"}, "well-formed"),
        ({"tasks": [], "label_config": '<View><Image name="image" value="$image"/></View>'}, "no usable control"),
        ({"tasks": [], "label_config": LABEL_CONFIG, "params": {"context": {"result": []}}}, "needs a task"),
        ({"tasks": [], "label_config": LABEL_CONFIG, "params": {"context": 5}}, "context"),
    ],
)
def test_requests_that_cannot_be_answered_get_a_clear_400(client: FlaskClient, body: Any, part: str) -> None:
    response = client.post("/predict", json=body)
    assert response.status_code == 400
    assert part in response.get_json()["error"]


def test_a_webhook_without_action_is_refused(client: FlaskClient) -> None:
    assert client.post("/webhook", json={"project": {"id": 1}}).status_code == 400


def test_unknown_paths_and_methods_answer_json(client: FlaskClient) -> None:
    assert client.get("/nothing").status_code == 404
    assert client.get("/predict").status_code == 405
    assert "error" in client.get("/nothing").get_json()


def test_no_task_gives_no_slot(client: FlaskClient) -> None:
    assert client.post("/predict", json=batch()).get_json() == {"results": []}


def test_bodies_and_tokens_are_never_logged(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client.post("/setup", json={"project": "1.2", "schema": LABEL_CONFIG, "access_token": "swordfish"})
    client.post("/setup", json={"project": ["swordfish"], "access_token": "swordfish"})
    client.post("/predict", data=b'{"tasks": swordfish', content_type="application/json")
    client.post("/webhook", json={"action": "PROJECT_UPDATED", "project": {"id": 1, "token": "swordfish"}})
    assert "swordfish" not in caplog.text


def test_problems_of_a_config_are_logged_at_setup_once(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    xml = LABEL_CONFIG.replace(' smart="false"', "")
    for _ in range(3):
        client.post("/setup", json={"project": "7.1", "schema": xml})
    assert caplog.text.count('set smart="false"') == 1
    assert "project 7.1" in caplog.text


def test_without_weights_health_and_setup_answer_and_predict_says_what_to_do(settings: Settings) -> None:
    def load() -> PslgSam:
        raise WeightsError("no weights here: run pslg weights download")

    service = LabelingService(settings.model_copy(update={"config": "configs/compact.yaml"}), load)
    service.start()
    service.model.wait(30)
    client = create_app(settings, service).test_client()
    assert client.get("/health").get_json()["status"] == "UP"
    assert client.post("/setup", json={"project": "1.2"}).get_json() == {"model_version": "compact-unavailable"}
    response = client.post("/predict", json=batch())
    assert response.status_code == 503
    assert "pslg weights download" in response.get_json()["error"]
    assert client.get("/versions").get_json() == {"versions": []}
    service.close()


def test_while_models_load_nothing_waits(settings: Settings) -> None:
    release = threading.Event()

    def load() -> PslgSam:
        release.wait(60)
        return tiny_pipeline()

    service = LabelingService(settings, load)
    service.start()
    client = create_app(settings, service).test_client()
    assert client.get("/health").status_code == 200
    assert client.post("/setup", json={"project": "1.2"}).get_json() == {"model_version": "compact-unavailable"}
    assert client.post("/predict", json=batch()).status_code == 503
    release.set()
    assert service.model.wait(60)
    assert client.post("/setup", json={"project": "1.2"}).get_json() == {"model_version": VERSION}
    service.close()


def test_metrics_count_what_happened(client: FlaskClient, site: Site) -> None:
    url = site.put("/a.png", png())
    client.post("/predict", json=batch(task(1, url), task(2, url, "the absent ship"), task(3, site.url + "/none")))
    text = client.get("/metrics").get_data(as_text=True)
    for line in (
        'pslg_prelabels_total{outcome="answered"} 1.0',
        'pslg_prelabels_total{outcome="abstained"} 1.0',
        'pslg_prelabels_total{outcome="failed"} 1.0',
        'pslg_requests_total{endpoint="predict",status="200"} 1.0',
        "pslg_model_ready 1.0",
        "pslg_brush_code_bytes_count 1.0",
    ):
        assert line in text


def test_encodings_that_a_gpu_had_no_memory_for_are_counted(settings: Settings, site: Site) -> None:
    def load() -> PslgSam:
        pipeline = tiny_pipeline()
        make_scarce(pipeline.segmenter)
        return pipeline

    service = LabelingService(settings, load)
    service.start()
    assert service.model.wait(60)
    client = create_app(settings, service).test_client()
    answer = client.post("/predict", json=batch(task(1, site.put("/a.png", png())))).get_json()
    assert answer["results"][0]["result"]
    text = client.get("/metrics").get_data(as_text=True)
    assert re.search(r"^pslg_gpu_memory_fallbacks_total [1-9]", text, re.M)
    service.close()


def test_two_services_in_one_process_do_not_share_metrics(client: FlaskClient, tmp_path: Path) -> None:
    client.get("/health")
    other = LabelingService(Settings(state_dir=tmp_path / "other"), tiny_pipeline)
    assert 'endpoint="health"' not in other.render_metrics().decode()
    other.close()


def test_large_bodies_are_held_within_a_budget() -> None:
    budget = BodyBudget(100, small=10)
    refused = pytest.raises(UnavailableError, match="ask later")
    with budget.holding(80), budget.holding(10), budget.holding(20), refused, budget.holding(11):
        pass
    with budget.holding(500):
        pass
