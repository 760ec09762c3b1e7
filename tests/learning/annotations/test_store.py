"""The present state of annotations: from events as Label Studio sends them, in any order, any number of times."""

from __future__ import annotations

import copy
import itertools
import json
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.database import Database
from backend.learning.annotations.changes import AnnotationDeleted, Change, annotation_seen, task_seen
from backend.learning.annotations.store import AnnotationRow, AnnotationStore

CAPTURES = Path(__file__).parents[2] / "data" / "captures"
PROJECT = {
    "id": 2,
    "created_at": "2026-11-23T09:29:15Z",
    "updated_at": "2026-11-23T09:29:15Z",
    "label_config": "<View/>",
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnnotationStore]:
    database = Database.of_state(tmp_path)
    yield AnnotationStore(database)
    database.close()


def captured(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((CAPTURES / f"webhook_{name}.json").read_text())["request_body"]
    return body


def moment(seconds: int) -> str:
    return f"2026-11-23T10:{seconds // 60:02}:{seconds % 60:02}.000001Z"


def region(label: str, kind: str = "brushlabels", **more: Any) -> dict[str, Any]:
    value = {"format": "rle", "rle": [0], kind: [label]}
    return {"id": label, "type": kind, "original_width": 8, "original_height": 8, "value": value, **more}


def annotation(identity: int, seconds: int, *regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "unique_id": f"unique {identity}",
        "task": 100 + identity,
        "created_at": moment(0),
        "updated_at": moment(seconds),
        "was_cancelled": False,
        "result": list(regions),
        **more,
    }


def event(action: str, **body: Any) -> dict[str, Any]:
    return {"action": action, "project": PROJECT, **body}


def submitted(action: str, found: dict[str, Any]) -> dict[str, Any]:
    task = {"id": found["task"], "data": {"image": f"/{found['task']}.png"}, "updated_at": found["updated_at"]}
    return event(action, annotation=found, task=task)


def state(store: AnnotationStore, project: int = 2) -> dict[int, tuple[bool, list[str | None]]]:
    return {row.id: (row.skipped, [item.label for item in row.regions]) for row in store.annotations(project)}


def test_captured_webhooks_add_up(store: AnnotationStore) -> None:
    for name in ("TASKS_CREATED", "ANNOTATION_CREATED"):
        store.events.append(captured(name))
    (row,) = store.annotations(2)
    assert (row.id, row.task, row.skipped, row.annotator, row.lead_time, row.parent_prediction) == (
        1,
        1,
        False,
        1,
        12.3,
        1,
    )
    assert row.data["expression"] == "the red building on the left"
    assert [(item.label, item.origin, item.score) for item in row.regions] == [
        ("building", "prediction", 0.88),
        ("water", "prediction", 0.61),
    ]
    assert store.accepted_masks(2) == 2
    store.events.append(captured("ANNOTATION_UPDATED"))
    assert state(store) == {1: (False, ["building"])}
    store.events.append(captured("PROJECT_UPDATED"))
    project = store.project(2)
    assert project is not None
    assert "<BrushLabels" in project.label_config
    store.events.append(captured("ANNOTATIONS_DELETED"))
    assert state(store) == {}
    assert store.accepted_masks(2) == 0


def test_a_skip_counts_as_skipped_and_a_bulk_creation_as_its_annotations(store: AnnotationStore) -> None:
    store.events.append(submitted("ANNOTATION_CREATED", annotation(1, 1, was_cancelled=True)))
    bulk = [annotation(number, 1, region("ship")) for number in (2, 3)]
    tasks = [{"id": item["task"], "data": {"image": "/a.png"}, "updated_at": moment(0)} for item in bulk]
    store.events.append(event("ANNOTATIONS_CREATED", annotation=bulk, task=tasks))
    assert state(store) == {1: (True, []), 2: (False, ["ship"]), 3: (False, ["ship"])}
    assert store.accepted_masks(2) == 2


def test_clicks_and_second_results_are_no_masks(store: AnnotationStore) -> None:
    regions = [region("ship"), region("ship", "keypointlabels"), region("ship", "rectanglelabels")]
    store.events.append(submitted("ANNOTATION_CREATED", annotation(1, 1, *regions)))
    assert store.accepted_masks(2) == 1


def history(rng: random.Random) -> list[dict[str, Any]]:
    """What happened to a few annotations, in order."""
    events = []
    for identity in range(1, 5):
        seconds = 1
        labels = itertools.count()
        found = annotation(identity, seconds, region(f"label {next(labels)}"))
        events.append(submitted("ANNOTATION_CREATED", found))
        for _ in range(rng.randrange(4)):
            seconds += rng.randrange(1, 50)
            found = annotation(identity, seconds, region(f"label {next(labels)}"), was_cancelled=rng.random() < 0.3)
            events.append(submitted("ANNOTATION_UPDATED", found))
        match rng.randrange(4):
            case 0:
                events.append(event("ANNOTATIONS_DELETED", annotations=[{"id": identity}]))
            case 1:
                events.append(event("TASKS_DELETED", tasks=[{"id": 100 + identity}]))
    return events


@given(st.randoms(use_true_random=False))
@settings(max_examples=15)
def test_order_and_repetition_do_not_matter(rng: random.Random) -> None:
    events = history(rng)
    shuffled = [copy.deepcopy(item) for item in events + rng.choices(events, k=5)]
    rng.shuffle(shuffled)
    states = []
    for sequence in (events, shuffled):
        with tempfile.TemporaryDirectory() as folder:
            database = Database.of_state(Path(folder))
            store = AnnotationStore(database)
            for body in sequence:
                store.events.append(body)
                if rng.random() < 0.3:
                    store.refresh()
            states.append((state(store), store.accepted_masks(2)))
            database.close()
    assert states[0] == states[1]


def test_an_event_that_is_not_understood_does_not_stop_those_after_it(store: AnnotationStore) -> None:
    store.events.append(event("ANNOTATION_CREATED", annotation={"id": "one"}, task={"id": 1, "data": {}}))
    store.events.append(event("ANNOTATION_CREATED"))
    store.events.append({"action": "ANNOTATION_CREATED", "annotation": {}})
    store.events.append(submitted("ANNOTATION_CREATED", annotation(1, 1, region("ship"))))
    assert state(store) == {1: (False, ["ship"])}


def test_a_project_that_was_made_anew_forgets_the_old_one(store: AnnotationStore) -> None:
    store.events.append(submitted("ANNOTATION_CREATED", annotation(1, 1, region("ship"))))
    store.events.append(submitted("ANNOTATION_CREATED", annotation(2, 1, region("ship"))))
    anew = {**PROJECT, "created_at": "2026-11-25T00:00:00Z", "updated_at": "2026-11-25T00:00:00Z"}
    other = annotation(1, 0, region("bridge"), unique_id="another", task=5)
    store.events.append({**submitted("ANNOTATION_CREATED", other), "project": anew})
    store.events.append(submitted("ANNOTATION_UPDATED", annotation(2, 9, region("ship"))))
    assert state(store) == {1: (False, ["bridge"])}


def test_what_the_api_says_is_newer_than_the_events_before_it_and_older_than_those_after(
    store: AnnotationStore,
) -> None:
    store.events.append(submitted("ANNOTATION_CREATED", annotation(1, 50, region("late clock"))))
    store.events.append(submitted("ANNOTATION_CREATED", annotation(2, 1, region("gone"))))
    before = store.events.last_id()
    store.events.append(submitted("ANNOTATION_CREATED", annotation(3, 9, region("after"))))
    task = {"id": 104, "data": {"image": "/104.png"}}
    found: list[Change] = [
        annotation_seen(annotation(1, 10, region("clock set back"))),
        AnnotationDeleted(2),
        annotation_seen(annotation(3, 5, region("old page"))),
        task_seen(task),
        annotation_seen(annotation(4, 5, region("imported"))),
    ]
    expected = {
        1: (False, ["clock set back"]),
        3: (False, ["after"]),
        4: (False, ["imported"]),
    }
    for _ in range(2):
        store.apply_sync(2, list(found), before)
        assert state(store) == expected
    store.events.append(submitted("ANNOTATION_UPDATED", annotation(4, 4, region("late"))))
    assert state(store) == expected


def test_many_threads_fold_one_log(tmp_path: Path) -> None:
    database = Database.of_state(tmp_path)
    stores = [AnnotationStore(database) for _ in range(4)]
    for identity in range(1, 101):
        stores[0].events.append(submitted("ANNOTATION_CREATED", annotation(identity, 1, region("ship"))))
    found: list[list[AnnotationRow]] = []
    threads = [threading.Thread(target=lambda own=own: found.append(list(own.annotations(2)))) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(rows) for rows in found] == [100] * 4
    database.close()
