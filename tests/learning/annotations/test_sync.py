"""A sync brings the store to what Label Studio has: imports, missed updates, deletions; webhooks meanwhile count."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli import pslg
from backend.database import Database
from backend.learning.annotations.store import AnnotationStore
from backend.learning.annotations.sync import SyncReport, sync_project
from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio
from tests.dataset_tools.label_studio.test_fetch import PERSONAL, StandIn

PROJECT = 4


@pytest.fixture
def studio() -> Iterator[StandIn]:
    standin = StandIn(230)
    thread = threading.Thread(target=standin.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield standin
    standin.shutdown()
    standin.server_close()
    thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnnotationStore]:
    database = Database.of_state(tmp_path)
    yield AnnotationStore(database)
    database.close()


def present(store: AnnotationStore) -> set[int]:
    return {row.id for row in store.annotations(PROJECT)}


def test_imports_and_deletions_arrive(studio: StandIn, store: AnnotationStore, tmp_path: Path) -> None:
    client = LabelStudio(studio.url, PERSONAL)
    assert sync_project(store, client, PROJECT, tmp_path) == SyncReport(230, 230, 0, 0)
    assert present(store) == set(range(230))
    assert store.accepted_masks(PROJECT) == 230
    project = store.project(PROJECT)
    assert project is not None
    assert project.title == "Ships"
    del studio.tasks[5]
    studio.tasks[7]["annotations"] = []
    studio.unlisted = [studio.tasks[7], studio.tasks.pop(20)]
    assert sync_project(store, client, PROJECT, tmp_path) == SyncReport(228, 227, 1, 1)
    assert present(store) == set(range(230)) - {5, 8}
    assert not (tmp_path / "sync" / str(PROJECT)).exists()


def test_an_interrupted_sync_goes_on_and_what_came_meanwhile_counts(
    studio: StandIn, store: AnnotationStore, tmp_path: Path
) -> None:
    client = LabelStudio(studio.url, PERSONAL)
    studio.fail_at_page = 3
    with pytest.raises(LabelStudioError, match=r": 500"):
        sync_project(store, client, PROJECT, tmp_path)
    body = {"project": {"id": PROJECT}, "annotations": [{"id": 3}]}
    store.events.append({"action": "ANNOTATIONS_DELETED", **body})
    created = {"annotation": {"id": 999, "result": [], "task": 998}, "task": {"id": 998, "data": {}}}
    store.events.append({"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}, **created})
    studio.fail_at_page = None
    studio.pages.clear()
    sync_project(store, client, PROJECT, tmp_path)
    assert studio.pages == [3]
    assert present(store) == set(range(230)) - {3} | {999}


def test_the_command_says_what_it_found_and_what_it_needs(studio: StandIn, tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(pslg, ["sync", str(PROJECT), "--state-dir", str(tmp_path)], env={"LABEL_STUDIO_URL": ""})
    assert "LABEL_STUDIO_API_KEY" in str(result.exception)
    environment = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": PERSONAL}
    result = runner.invoke(pslg, ["sync", str(PROJECT), "--state-dir", str(tmp_path)], env=environment)
    assert result.exit_code == 0, result.output
    assert "230 tasks with 230 annotations" in result.output
