"""Changes of projects, tasks and annotations into the tables of their present state; rules: ``annotation_store``."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence

import orjson

from backend.learning.annotations.changes import (
    AnnotationDeleted,
    AnnotationSeen,
    Change,
    ProjectSeen,
    TaskDeleted,
    TaskSeen,
    TrainingWanted,
)
from backend.learning.annotations.events import Event
from backend.learning.versions import jobs as training_jobs
from backend.learning.versions import registry as model_versions

__all__ = ["accepted_masks", "apply_change", "apply_event"]

logger = logging.getLogger(__name__)


def accepted_masks(connection: sqlite3.Connection, project: int) -> int:
    """Outlined objects in the project's submitted annotations."""
    row = connection.execute(
        "SELECT coalesce(sum(masks), 0) FROM live_annotations WHERE project = ? AND NOT skipped",
        (project,),
    ).fetchone()
    return int(row[0])


def apply_event(connection: sqlite3.Connection, event: Event, found: Sequence[Change]) -> None:
    """Write the changes of an event."""
    if event.project is None:
        return
    for change in found:
        if not apply_change(connection, event.project, change, event.id, -1):
            return


def apply_change(connection: sqlite3.Connection, project: int, change: Change, event: int, before: int) -> bool:
    """Write one change; False if its event belongs to an older project with the same id.

    Args:
        connection: in a transaction that holds the write lock.
        project: the project's id.
        change: what to write.
        event: number of the event that says so; for what the API says, that of the last event before it was asked.
        before: what the store knows from events up to this number is older, whatever the times say; -1 for an event.
    """
    match change:
        case ProjectSeen():
            return _apply_project(connection, change, from_api=before >= 0)
        case TaskSeen():
            _apply_task(connection, project, change, event, before)
        case TaskDeleted():
            connection.execute(
                "INSERT INTO tasks (project, id, updated_at, deleted, data, event) VALUES (?, ?, 0, 1, '{}', ?)"
                " ON CONFLICT (project, id) DO UPDATE SET deleted = 1, event = excluded.event",
                (project, change.id, event),
            )
        case AnnotationSeen():
            _apply_annotation(connection, project, change, event, before)
        case AnnotationDeleted():
            connection.execute(
                "INSERT INTO annotations (project, id, created_at, updated_at, event, deleted, skipped, masks, body)"
                " VALUES (?, ?, 0, 0, ?, 1, 0, 0, '')"
                " ON CONFLICT (project, id) DO UPDATE SET deleted = 1, event = excluded.event, masks = 0, body = ''",
                (project, change.id, event),
            )
        case TrainingWanted():
            training_jobs.want(connection, project, "button", accepted_masks(connection, project))
    return True


def _apply_project(connection: sqlite3.Connection, change: ProjectSeen, *, from_api: bool) -> bool:
    known = connection.execute("SELECT created_at, updated_at FROM projects WHERE id = ?", (change.id,)).fetchone()
    if known is not None and change.created_at < known[0] and not from_api:
        logger.warning(
            "an event of an older project %d than the known one is left out: give each Label Studio a state folder of"
            " its own (PSLG_STATE_DIR)",
            change.id,
        )
        return False
    if known is not None and change.created_at > known[0]:
        logger.warning("project %d is a new one under a known id: what is known of the old one is forgotten", change.id)
        connection.execute("DELETE FROM annotations WHERE project = ?", (change.id,))
        connection.execute("DELETE FROM tasks WHERE project = ?", (change.id,))
        model_versions.forget_promotions(connection, change.id)
    elif known is not None and change.updated_at < known[1] and not from_api:
        return True
    connection.execute(
        "INSERT OR REPLACE INTO projects (id, created_at, updated_at, title, label_config) VALUES (?, ?, ?, ?, ?)",
        (change.id, change.created_at, change.updated_at, change.title, change.label_config),
    )
    return True


def _apply_task(connection: sqlite3.Connection, project: int, change: TaskSeen, event: int, before: int) -> None:
    # What the API says counts more than what events up to then said: times, pictures, deletions.
    connection.execute(
        "INSERT INTO tasks (project, id, updated_at, deleted, data, event) VALUES (?, ?, ?, 0, ?, ?)"
        " ON CONFLICT (project, id) DO UPDATE SET updated_at = excluded.updated_at, data = excluded.data,"
        " deleted = CASE WHEN tasks.event <= ? THEN 0 ELSE tasks.deleted END, event = max(tasks.event, excluded.event)"
        " WHERE excluded.updated_at >= tasks.updated_at OR tasks.event <= ?",
        (project, change.id, change.updated_at, orjson.dumps(change.data), event, before, before),
    )


def _apply_annotation(
    connection: sqlite3.Connection, project: int, change: AnnotationSeen, event: int, before: int
) -> None:
    known = connection.execute(
        "SELECT unique_id, created_at, updated_at, event, deleted FROM annotations WHERE project = ? AND id = ?",
        (project, change.id),
    ).fetchone()
    if known is not None:
        unique_id, created_at, updated_at, known_event, deleted = known
        if known_event <= before:
            pass  # the API was asked after that
        elif unique_id is not None and change.unique_id is not None and unique_id != change.unique_id:
            if change.created_at < created_at:
                return
        elif deleted or change.updated_at < updated_at:
            return
    body = {key: value for key, value in change.body.items() if key != "project"}
    row = (project, change.id, change.task, change.unique_id, change.created_at, change.updated_at, event, 0)
    connection.execute(
        "INSERT OR REPLACE INTO annotations (project, id, task, unique_id, created_at, updated_at, event, deleted,"
        " skipped, masks, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, change.skipped, change.masks, orjson.dumps(body)),
    )
