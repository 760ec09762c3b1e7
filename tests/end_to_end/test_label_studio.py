"""The real Label Studio 1.23, driven over its API: connect, retrieve, compare, restart, credentials, events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from backend.database import Database
from backend.demo.backend_process import BackendProcess
from backend.demo.label_studio_client import LabelStudioClient
from backend.learning.annotations.events import EventLog
from dataset_tools import brush_rle, metrics
from dataset_tools.label_studio.notes import answered
from tests.end_to_end.conftest import StartBackend, Studio
from tests.end_to_end.projects import Project, create_project
from tests.end_to_end.scenes import airplane_scene

pytestmark = pytest.mark.timeout(1800)


def _without_ids(regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Region ids are random by contract."""
    return [{key: value for key, value in region.items() if key != "id"} for region in regions]


def _direct_answer(backend: BackendProcess, project: Project) -> list[dict[str, Any]]:
    """What the service answers when it is asked without Label Studio."""
    tasks = [
        {"id": task, "data": {"image": project.image, "expression": expression}}
        for expression, task in project.tasks.items()
    ]
    body = {"tasks": tasks, "label_config": project.label_config, "params": {"context": None}}
    with requests.Session() as session:
        session.trust_env = False
        response = session.post(f"{backend.url}/predict", json=body, timeout=120)
    response.raise_for_status()
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def _connect(studio: Studio, project: Project, backend: BackendProcess) -> str:
    connected = studio.client.connect_backend(project.id, backend.url)
    assert connected.state == "CO", connected.error_message
    assert connected.model_version is not None
    assert connected.model_version.startswith("compact-")
    return connected.model_version


def test_predictions_are_stored_once_and_survive_a_restart_of_the_backend(
    studio: Studio, personal_access_token: str, start_backend: StartBackend
) -> None:
    scene = airplane_scene()
    backend = start_backend(personal_access_token)
    project = create_project(studio, "Stored once", scene, "all the airplanes", "the windmill", "the tennis court")
    version = _connect(studio, project, backend)

    studio.client.retrieve_predictions(project.id, list(project.tasks.values()))
    stored = studio.client.predictions(project.id)
    assert sorted(item.task for item in stored) == sorted(project.tasks.values())
    assert {item.model_version for item in stored} == {version}

    by_task = {item.task: item for item in stored}
    for task, answer in zip(project.tasks.values(), _direct_answer(backend, project), strict=True):
        assert _without_ids(by_task[task].result) == _without_ids(answer["result"])
        assert by_task[task].score == pytest.approx(answer["score"])

    airplanes = by_task[project.tasks["all the airplanes"]]
    height, width = scene.image.shape[:2]
    masks = [brush_rle.decode(region["value"]["rle"], height, width) for region in airplanes.result]
    truth = [item.mask for item in scene.objects if item.category == "airplane"]
    assert metrics.iou(np.logical_or.reduce(masks), np.logical_or.reduce(truth)) > 0.5
    assert answered(by_task[project.tasks["the windmill"]].result) == []

    backend.stop()
    again = start_backend(personal_access_token, backend.port)
    studio.client.retrieve_predictions(project.id, list(project.tasks.values()))
    assert {item.id for item in studio.client.predictions(project.id)} == {item.id for item in stored}
    assert [_without_ids(answer["result"]) for answer in _direct_answer(again, project)] == [
        _without_ids(by_task[task].result) for task in project.tasks.values()
    ]


def test_an_image_that_is_gone_costs_only_its_own_task(
    studio: Studio, personal_access_token: str, start_backend: StartBackend
) -> None:
    project = create_project(studio, "One image gone", airplane_scene(), "all the airplanes")
    (gone,) = studio.client.import_tasks(
        project.id, [{"image": f"/data/upload/{project.id}/0-gone.png", "expression": "the ship"}]
    )
    _connect(studio, project, start_backend(personal_access_token))
    studio.client.retrieve_predictions(project.id, [gone, *project.tasks.values()])
    assert [item.task for item in studio.client.predictions(project.id)] == list(project.tasks.values())


@pytest.mark.filterwarnings("ignore:The `parse_obj` method:DeprecationWarning")  # label-studio-sdk's own code
def test_a_legacy_token_fetches_images_where_it_is_allowed_and_a_personal_one_where_it_is_not(
    studio: Studio, personal_access_token: str, start_backend: StartBackend
) -> None:
    legacy = start_backend(studio.process.token)
    project = create_project(studio, "Tokens", airplane_scene(), "all the airplanes", "the airplane on the left")
    first, second = project.tasks.values()
    _connect(studio, project, legacy)
    studio.client.retrieve_predictions(project.id, [first])
    assert [item.task for item in studio.client.predictions(project.id)] == [first]
    port = legacy.port
    legacy.stop()
    with contextlib.closing(LabelStudioClient(studio.url, personal_access_token)) as client:
        try:
            client.set_legacy_tokens(enabled=False)
            start_backend(personal_access_token, port)
            client.retrieve_predictions(project.id, [second])
            assert sorted(item.task for item in client.predictions(project.id)) == [first, second]
        finally:
            client.set_legacy_tokens(enabled=True)


def test_a_refused_token_stores_nothing_names_the_cure_and_is_asked_again(
    studio: Studio, personal_access_token: str, start_backend: StartBackend
) -> None:
    project = create_project(studio, "Refused token", airplane_scene(), "all the airplanes")
    (task,) = project.tasks.values()
    refused = start_backend("0" * 40)
    _connect(studio, project, refused)
    studio.client.retrieve_predictions(project.id, [task])
    assert studio.client.predictions(project.id) == []
    log = refused.log.read_text()
    assert f"task {task}: not computed" in log
    assert "LABEL_STUDIO_API_KEY" in log
    refused.stop()
    start_backend(personal_access_token, refused.port)
    studio.client.retrieve_predictions(project.id, [task])
    assert [item.task for item in studio.client.predictions(project.id)] == [task]


def test_a_submitted_annotation_reaches_the_event_log(
    studio: Studio, personal_access_token: str, start_backend: StartBackend, tmp_path: Path
) -> None:
    project = create_project(studio, "Events", airplane_scene(), "all the airplanes")
    (task,) = project.tasks.values()
    _connect(studio, project, start_backend(personal_access_token))
    studio.client.retrieve_predictions(project.id, [task])
    (prediction,) = studio.client.predictions(project.id)
    studio.client.create_annotation(task, prediction.result)
    database = Database(tmp_path / "backend" / "server.sqlite3")
    while "ANNOTATION_CREATED" not in [event.action for event in EventLog(database).since()]:
        time.sleep(0.2)  # without the event, pytest's timeout ends the test
    (event,) = [event for event in EventLog(database).since() if event.action == "ANNOTATION_CREATED"]
    assert _without_ids(event.body["annotation"]["result"]) == _without_ids(prediction.result)
    assert "token" not in event.body["project"]
    database.close()
