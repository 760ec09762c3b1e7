"""Switching a running server between versions: nobody waits, nobody is answered by a half-loaded one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flask.testing import FlaskClient

from backend.database import Database
from backend.learning.versions.registry import ModelVersions
from backend.pipeline import PslgSam
from backend.server.app import create_app
from backend.server.models.project_models import Model
from backend.server.protocol import PredictRequest, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools.errors import WeightsError
from tests.learning.versions.test_registry import add
from tests.server.answers.test_prelabeling import Gate, pushing, wait_for
from tests.server.conftest import Site, batch, interactive, png, task
from tests.server.tiny import VERSION, tiny_pipeline

FIRST, SECOND = "tiny-aaaaaaaa", "tiny-bbbbbbbb"


class Loader:
    """Loads tiny pipelines under their folder's name, when it is allowed to."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.released.set()
        self.loaded: list[str] = []

    def __call__(self, config: Path) -> PslgSam:
        self.released.wait(60)
        self.loaded.append(config.parent.name)
        if (config.parent / "broken").exists():
            raise WeightsError("not a safetensors file")
        return tiny_pipeline(seed=len(self.loaded), version=config.parent.name)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def versions(settings: Settings) -> Iterator[ModelVersions]:
    database = Database.of_state(settings.state_dir)
    registry = ModelVersions(database, settings.state_dir)
    for version in (FIRST, SECOND):
        add(registry, database, version, config="compact")
    yield registry
    database.close()


@pytest.fixture
def start(settings: Settings, loader: Loader) -> Iterator[Callable[[], LabelingService]]:
    started: list[LabelingService] = []

    def start() -> LabelingService:
        service = LabelingService(settings, tiny_pipeline, loader)
        started.append(service)
        service.start()
        assert service.model.wait(60)
        return service

    yield start
    for service in started:
        service.close()


def test_whichever_thread_is_asked_computes_with_the_models_number_of_threads() -> None:
    """A thread that has computed before keeps torch's number of then, and its sums end in other digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        model = Model("tiny", tiny_pipeline, threads=1)
        model.start()
        assert model.wait(60)
        model.pipeline()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def setup(client: FlaskClient, project: str = "2.1795426155") -> str:
    version: str = client.post("/setup", json={"project": project}).get_json()["model_version"]
    return version


def until(client: FlaskClient, version: str) -> None:
    """Until /setup names ``version``; pytest's time limit ends it otherwise."""
    while setup(client) != version:
        pass


def test_a_promotion_switches_setup_batches_and_clicks_of_its_project_only(
    settings: Settings, versions: ModelVersions, start: Callable[[], LabelingService], loader: Loader, site: Site
) -> None:
    client = create_app(settings, start()).test_client()
    url = site.put("/a.png", png())
    point = {
        "type": "keypointlabels",
        "from_name": "point",
        "original_width": 80,
        "original_height": 60,
        "is_positive": True,
        "value": {"x": 50, "y": 50, "width": 1, "keypointlabels": ["building"]},
    }

    def answers(project: str = "2.1795426155") -> set[str]:
        found = set()
        for body in (batch(task(1, url)), interactive(task(1, url), [point])):
            (slot,) = client.post("/predict", json={**body, "project": project}).get_json()["results"]
            found.add(slot["model_version"])
        return found

    assert setup(client) == VERSION
    loader.released.clear()
    versions.promote(FIRST, "better")
    assert setup(client) == VERSION  # not before it is loaded
    assert answers() == {VERSION}
    loader.released.set()
    until(client, FIRST)
    assert answers() == {FIRST}
    assert setup(client, "3.1795426155") == VERSION
    assert answers("3.1795426155") == {VERSION}
    assert client.get("/versions").get_json()["versions"][:2] == [VERSION, FIRST]
    versions.promote(SECOND, "better still")
    until(client, SECOND)
    versions.rollback(2, "compact")
    assert setup(client) == FIRST  # still in memory
    assert answers() == {FIRST}
    versions.rollback(2, "compact")
    assert setup(client) == VERSION
    assert loader.loaded == [FIRST, SECOND]


def test_after_a_start_the_promoted_version_answers_or_none(
    settings: Settings, versions: ModelVersions, start: Callable[[], LabelingService], loader: Loader, site: Site
) -> None:
    versions.promote(FIRST, "better")
    loader.released.clear()
    service = start()
    client = create_app(settings, service).test_client()
    assert setup(client) == "compact-unavailable"
    assert FIRST in client.get("/health").get_json()["problem"]
    assert setup(client, "3.1") == VERSION
    loader.released.set()
    body = {**batch(task(1, site.put("/a.png", png()))), "project": "2.1"}
    (slot,) = client.post("/predict", json=body).get_json()["results"]  # waits
    assert slot["model_version"] == FIRST
    assert setup(client) == FIRST
    assert "problem" not in client.get("/health").get_json()


@pytest.mark.parametrize("damage", ["weights.bin", "broken"])
def test_a_version_that_cannot_be_loaded_leaves_the_one_before_in_place(
    settings: Settings,
    versions: ModelVersions,
    start: Callable[[], LabelingService],
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    client = create_app(settings, start()).test_client()
    versions.promote(FIRST, "better")
    until(client, FIRST)
    versions.promote(SECOND, "better still")
    (versions.path(SECOND) / damage).write_bytes(b"bad")
    with caplog.at_level(logging.ERROR):
        while not caplog.records:
            assert setup(client) == FIRST
    assert setup(client) == FIRST
    assert f"{SECOND} cannot be loaded" in caplog.text
    assert "pslg models rollback 2" in caplog.text


def test_the_version_used_longest_ago_leaves_the_memory_and_comes_back(
    settings: Settings, versions: ModelVersions, loader: Loader
) -> None:
    small = settings.model_copy(update={"version_memory": 1})
    database = Database.of_state(settings.state_dir)
    add(versions, database, SECOND, project=3, config="compact")
    database.close()
    versions.promote(FIRST, "better", 2)
    versions.promote(SECOND, "better", 3)
    service = LabelingService(small, tiny_pipeline, loader)
    service.start()
    assert service.model.wait(60)
    for project, version in ((2, FIRST), (3, SECOND), (2, FIRST)):
        assert service.models.pipeline(project).model_version == version
        assert service.models.versions() == [VERSION, version]
    service.close()


def test_a_rollback_drops_what_waits_and_pushes_nothing_of_what_was_begun(
    settings: Settings, versions: ModelVersions, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    gate, stored = Gate(), list[dict[str, Any]]()

    def load(config: Path) -> PslgSam:
        pipeline = tiny_pipeline(version=config.parent.name)
        pipeline.grounder = gate
        return pipeline

    one = pushing(settings, site, stored).model_copy(update={"prelabel_fetchers": 1})
    service = LabelingService(one, tiny_pipeline, load)
    service.start()
    assert service.model.wait(60)
    versions.promote(FIRST, "better")
    assert service.models.pipeline(2).model_version == FIRST
    url = site.put("/a.png", png())
    tasks = [task(number, url, words) for number, words in ((2, "the ship"), (3, "the bridge"), (4, "the harbor"))]
    with caplog.at_level(logging.INFO):
        request = validate(PredictRequest, {**batch(*tasks), "project": "2.1"})
        assert service.predict(request) == [[], [], []]
        wait_for(lambda: gate.asked)
        versions.rollback(2, "compact")
        gate.opened.set()
        wait_for(lambda: not any(service.prelabeler.late.waiting(item["id"]) for item in tasks))
    service.close()
    assert gate.asked == ["the ship"]  # in work when the switch came; the others were dropped
    assert stored == []
    assert f"project 2 is answered by {VERSION} now, no longer by {FIRST}" in caplog.text
    assert f"task 2: not pushed: {FIRST} no longer serves its project" in caplog.text
