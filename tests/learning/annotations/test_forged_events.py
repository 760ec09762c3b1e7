"""Events that lie: none of them jams the fold, and a sync brings back what Label Studio has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from backend.database import Database
from backend.learning.annotations.changes import annotation_seen, project_seen, task_seen
from backend.learning.annotations.store import AnnotationStore
from dataset_tools.errors import ProtocolError

PROJECT = {
    "id": 1,
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-02T00:00:00Z",
    "label_config": "<View/>",
}
TASK = {"id": 5, "updated_at": "2026-01-03T00:00:00Z", "data": {"image": "/data/true.png"}}
ANNOTATION = {
    "id": 9, "task": 5, "unique_id": "u", "created_at": "2026-01-03T00:00:00Z", "updated_at": "2026-01-03T00:00:00Z",
    "result": [{"type": "brushlabels", "value": {}}],
}  # fmt: skip
FUTURE = "2090-01-01T00:00:00Z"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnnotationStore]:
    database = Database.of_state(tmp_path)
    store = AnnotationStore(database)
    store.events.append({"action": "ANNOTATION_CREATED", "project": PROJECT, "task": TASK, "annotation": ANNOTATION})
    yield store
    database.close()


def images(store: AnnotationStore) -> list[tuple[int, str]]:
    return [(row.id, row.data["image"]) for row in store.annotations(1)]


def sync(store: AnnotationStore) -> None:
    before = store.events.last_id()
    store.apply_sync(1, [project_seen(PROJECT), task_seen(TASK), annotation_seen(ANNOTATION)], before)


def update(**changes: Any) -> dict[str, Any]:
    body = {"action": "ANNOTATION_UPDATED", "project": PROJECT, "task": TASK, "annotation": ANNOTATION}
    return {**body, **{key: {**body[key], **value} for key, value in changes.items()}}  # type: ignore[dict-item]


FORGED = [
    {"action": "ANNOTATIONS_DELETED", "project": PROJECT, "annotations": [{"id": 9}]},
    {"action": "TASKS_DELETED", "project": PROJECT, "tasks": [{"id": 5}]},
    update(project={"created_at": FUTURE}),
    update(project={"created_at": "2026-06-01T00:00:00Z", "label_config": ""}),
    update(project={"updated_at": FUTURE, "label_config": ""}),
    update(task={"updated_at": FUTURE, "data": {"image": "/data/false.png"}}),
    update(task={"updated_at": "2026-06-01T00:00:00Z", "data": {"image": "/data/false.png"}}),
    update(annotation={"updated_at": FUTURE, "result": []}),
    update(annotation={"updated_at": "2026-06-01T00:00:00Z", "result": []}),
    update(annotation={"unique_id": "other", "created_at": "2026-06-01T00:00:00Z", "result": []}),
]


@pytest.mark.parametrize("event", FORGED)
def test_a_sync_repairs_what_an_event_forged(store: AnnotationStore, event: dict[str, Any]) -> None:
    store.events.append(event)
    store.refresh()
    sync(store)
    assert images(store) == [(9, "/data/true.png")]
    assert store.accepted_masks(1) == 1
    project = store.project(1)
    assert project is not None
    assert project.label_config == "<View/>"
    # What is genuine and comes after it counts again.
    store.events.append(update(task={"updated_at": "2026-07-01T00:00:00Z", "data": {"image": "/data/newer.png"}}))
    assert images(store) == [(9, "/data/newer.png")]


@pytest.mark.parametrize(
    "event",
    [
        update(project={"created_at": FUTURE}),
        update(project={"updated_at": FUTURE}),
        update(task={"updated_at": FUTURE}),
        update(annotation={"created_at": FUTURE}),
        update(annotation={"updated_at": "9999-12-31T23:59:59Z"}),
        {"action": "TASKS_CREATED", "project": PROJECT, "tasks": [{**TASK, "updated_at": FUTURE}]},
        {"action": "TASKS_DELETED", "project": PROJECT, "tasks": [{"id": "5"}]},
        {"action": "ANNOTATION_UPDATED", "project": PROJECT, "task": TASK, "annotation": {**ANNOTATION, "result": 5}},
    ],
)
def test_what_cannot_be_true_is_set_aside_with_its_reason(store: AnnotationStore, event: dict[str, Any]) -> None:
    number = store.events.append(event)
    ((found, reason),) = store.set_aside()
    assert found == number
    assert reason
    assert images(store) == [(9, "/data/true.png")]
    assert store.refresh() == number


@pytest.mark.parametrize("identity", [1 << 63, 1 << 80, -1, True + (1 << 64)])
@pytest.mark.parametrize("place", ["project", "task", "annotation"])
def test_ids_that_no_database_holds_are_refused_at_the_door_and_do_not_jam_older_logs(
    store: AnnotationStore, identity: int, place: str
) -> None:
    event = update(**{place: {"id": identity}})
    with pytest.raises(ProtocolError, match=place):
        store.events.append(event)
    if identity < 1 << 64:  # an earlier release stored it
        with store.database.transaction() as connection:
            connection.execute(
                "INSERT INTO events (received_at, action, project, body) VALUES (2e9, ?, 1, ?)",
                (event["action"], orjson.dumps(event)),
            )
        assert len(store.set_aside()) == 1
    store.events.append(update(task={"updated_at": "2026-07-01T00:00:00Z", "data": {"image": "/data/newer.png"}}))
    assert images(store) == [(9, "/data/newer.png")]


def test_what_an_event_said_during_a_sync_stays(store: AnnotationStore) -> None:
    before = store.refresh()
    store.events.append({"action": "TASKS_DELETED", "project": PROJECT, "tasks": [{"id": 5}]})
    store.refresh()
    store.apply_sync(1, [project_seen(PROJECT), task_seen(TASK), annotation_seen(ANNOTATION)], before)
    assert images(store) == []
