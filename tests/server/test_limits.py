"""Requests that nobody who means well sends: each is a 400 with the field, in no time and without a dead worker."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient

from backend.log_lines import LineFormatter
from backend.server.service import LabelingService
from tests.server.conftest import LABEL_CONFIG, Site, batch, interactive, png, task

BIG = 1 << 63


def nested(depth: int) -> bytes:
    return b'{"action": "X", "tasks": ' + b"[" * depth + b"]" * depth + b', "label_config": ""}'


def click(**value: Any) -> dict[str, Any]:
    return {
        "id": "c", "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True,
        "original_width": 80, "original_height": 60,
        "value": {"x": 50, "y": 50, "keypointlabels": ["building"], **value},
    }  # fmt: skip


def draft(kind: str, **value: Any) -> list[dict[str, Any]]:
    name = {"brushlabels": "mask", "polygonlabels": "polygon"}[kind]
    region = {"id": "r", "type": kind, "from_name": name, "to_name": "image", "value": {kind: ["building"], **value}}
    return [{"id": 1, "result": [region]}]


@pytest.mark.parametrize(
    ("path", "body", "part"),
    [
        ("/predict", {**batch(), "project": str(BIG)}, "project"),
        ("/predict", {**batch(), "project": "9" * 150}, "project"),
        ("/predict", {**batch(), "project": "9" * 5000}, "project"),
        ("/setup", {"project": str(BIG)}, "project"),
        ("/setup", {"project": "9" * 5000}, "project"),
        ("/setup", {"project": "1", "schema": " " * 5_000_000}, "schema"),
        ("/webhook", {"action": "X", "project": {"id": BIG}}, "project.id"),
        ("/webhook", {"action": "X", "project": {"id": -1}}, "project.id"),
        ("/webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": BIG}}, "annotation.id"),
        ("/webhook", {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}, {"id": BIG}]}, "annotations.id"),
        ("/webhook", {"action": "TASKS_DELETED", "tasks": [{"id": BIG}]}, "tasks.id"),
        ("/webhook", {"action": "x" * 1000}, "action"),
        ("/webhook", {"action": "x\nforged"}, "action"),
        ("/predict", batch({"id": BIG, "data": {}}), "tasks.0.id"),
        ("/predict", batch({"id": "x" * 1000, "data": {}}), "tasks.0.id"),
        ("/predict", {**batch(), "tasks": [0] * 1_000_000}, "tasks"),
        ("/predict", {**batch(), "tasks": [{}] * 100_001}, "tasks"),
        ("/predict", {**batch(), "label_config": " " * 5_000_000}, "label_config"),
        ("/predict", interactive({"id": 1, "data": {}}, [click()] * 101), "params.context.result"),
        ("/predict", interactive({"id": 1, "data": {}}, [{}] * 1001), "params.context.result"),
    ],
)
def test_what_is_out_of_bounds_is_named(client: FlaskClient, path: str, body: Any, part: str) -> None:
    start = time.process_time()
    answer = client.post(path, json=body)
    assert answer.status_code == 400, answer.data[:300]
    assert part in answer.get_json()["error"]
    assert len(answer.data) < 1000
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    "body", [nested(1000), nested(1100), nested(300), b'{"tasks": [' + b"[]," * 1_100_000 + b"[]]}", b"[" * 2_000_000]
)
@pytest.mark.parametrize("path", ["/predict", "/webhook", "/setup"])
def test_deep_and_crowded_json_is_refused_before_it_costs_memory(
    client: FlaskClient, service: LabelingService, path: str, body: bytes
) -> None:
    answer = client.post(path, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert service.events.since() == []


def test_a_large_body_is_refused_by_its_announced_size(client: FlaskClient) -> None:
    answer = client.post("/predict", data=b" " * 64_000_001, content_type="application/json")
    assert answer.status_code == 413


def test_a_config_of_many_controls_is_refused(client: FlaskClient) -> None:
    xml = "<View>" + '<BrushLabels name="b" toName="image"><Label value="ship"/>' * 6000 + "</BrushLabels>" * 6000
    answer = client.post("/predict", json=batch(label_config=xml + '<Image name="image" value="$image"/></View>'))
    assert answer.status_code == 400
    assert "controls" in answer.get_json()["error"]


POLYGON_CONFIG = LABEL_CONFIG.replace(
    "<Header", '<PolygonLabels name="polygon" toName="image"><Label value="building"/></PolygonLabels><Header', 1
)


@pytest.mark.parametrize(
    "drafts",
    [
        draft("brushlabels", format="rle", rle=6_000_000_000),
        draft("brushlabels", format="rle", rle=[6_000_000_000]),
        draft("brushlabels", format="rle", rle=[2**63 + 7]),
        draft("brushlabels", format="rle", rle=[-1, 300, "x", None, []]),
        draft("brushlabels", format="rle", rle=[255] * 100_000),
        draft("brushlabels", format="rle", rle="x" * 1000),
        draft("brushlabels", format="rle", rle={"length": 5}),
        draft("brushlabels", format="rle", rle=True),
        draft("polygonlabels", points=[[-1e8, -1e8], [1e8, -1e8], [1e8, 1e8], [-1e8, 1e8]]),
        draft("polygonlabels", points=[[-1e6, -1e6], [1e6, -1e6], [1e6, 1e6], [-1e6, 1e6]]),
        draft("polygonlabels", points=[[0, 0], [100, 0], [100, 100]] * 100_000),
        draft("polygonlabels", points=[[0, 0], [1000, 1000]] * 20_000),
        draft("polygonlabels", points=[[1e308, 1e308], [-1e308, 0], [0, 0]]),
        draft("polygonlabels", points=6_000_000_000),
        draft("polygonlabels", points=[["a", "b"], None, {}]),
        draft("polygonlabels", points=[[[0, 0]]] * 3),
    ],
)
def test_no_region_of_a_draft_ends_the_server(client: FlaskClient, site: Site, drafts: list[Any]) -> None:
    found = task(1, site.put("/a.png", png()), drafts=drafts)
    answer = client.post("/predict", json=interactive(found, [click()], POLYGON_CONFIG))
    assert answer.status_code == 200
    assert len(answer.get_json()["results"]) == 1


@pytest.mark.parametrize(
    "value",
    [{"x": 1e308, "y": -1e308}, {"x": 1e12, "y": 50}, {"x": True, "y": []}, {"x": None}, {"keypointlabels": [["x"]]},
     {"rle": 6_000_000_000}],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["keypointlabels", "brushlabels", "rectanglelabels", "textarea"])
def test_no_prompt_ends_the_server(client: FlaskClient, site: Site, value: dict[str, Any], kind: str) -> None:
    item = {**click(**value, brushlabels=["building"], rectanglelabels=["building"], width=1e300), "type": kind}
    answer = client.post("/predict", json=interactive(task(1, site.put("/a.png", png())), [item]))
    assert answer.status_code == 200


def test_actions_in_the_metrics_are_a_closed_set(client: FlaskClient, service: LabelingService) -> None:
    for number in range(50):
        assert client.post("/webhook", json={"action": f"ACTION_{number}"}).status_code == 201
    text = service.render_metrics().decode()
    assert 'pslg_events_total{action="other"} 50.0' in text
    assert "ACTION_7" not in text


def test_log_lines_are_not_forged(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    forged = "1\n2026-01-01 00:00:00,000 ERROR root: forged\r\x1b[2J\u2028\x85"
    caplog.set_level(logging.DEBUG)
    client.post("/predict", json=batch(task(1, "/data/x.png"), {"id": forged, "data": {"image": forged}}))
    client.post("/setup", json={"project": forged, "schema": forged})
    client.post("/webhook", data=json.dumps({"action": forged}), content_type="application/json")
    client.get("/%0aforged%1b[2J")
    assert any("forged" in record.getMessage() for record in caplog.records)
    formatter = LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    for record in caplog.records:
        record.exc_info = record.exc_text = None
        assert formatter.format(record).isprintable()


def test_an_honest_large_batch_passes(client: FlaskClient) -> None:
    code = [255] * 200_000
    stored = [{"result": [{"id": "r", "type": "brushlabels", "value": {"rle": code}}]}]
    body = batch(*({"id": number, "data": {"image": "/nothing"}, "predictions": stored} for number in range(20)))
    assert len(orjson.dumps(body)) > 15_000_000
    assert client.post("/predict", json=body).get_json()["results"] == [[]] * 20
