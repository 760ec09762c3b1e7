"""Label Studio's webhooks, kept on disk in the order they came. Nothing is acknowledged before it is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import orjson

from backend.database import Database
from dataset_tools.errors import ProtocolError

__all__ = ["ACTIONS", "MOST_ID", "Event", "EventLog"]


ACTIONS = frozenset(
    [
        "ANNOTATION_CREATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_DELETED",
        "TASKS_CREATED",
        "TASKS_DELETED",
        "PROJECT_CREATED",
        "PROJECT_UPDATED",
        "PROJECT_DELETED",
        "LABEL_LINK_CREATED",
        "LABEL_LINK_UPDATED",
        "LABEL_LINK_DELETED",
        "START_TRAINING",
    ]
)
"""What Label Studio announces; others are kept too."""
MOST_ID = (1 << 63) - 1
"""Largest id that a database holds."""
_ACTION_CHARACTERS = 80


@dataclass(frozen=True)
class Event:
    """One stored webhook.

    Attributes:
        id: increases with every event.
        received_at: seconds since the epoch.
        action: ``ANNOTATION_CREATED``, ``START_TRAINING``, ...
        project: the project's id, None where the request names none.
        body: the request without the project's token.
    """

    id: int
    received_at: float
    action: str
    project: int | None
    body: dict[str, Any]


class EventLog:
    """The events of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, body: dict[str, Any]) -> int:
        """Store a webhook's body and return its id; it is on disk when this returns.

        Raises:
            ProtocolError: there is no ``action``, or an id that no database holds.
        """
        action = body.get("action")
        if not isinstance(action, str) or not action:
            raise ProtocolError('a webhook needs an "action"')
        if len(action) > _ACTION_CHARACTERS or not action.isprintable():
            raise ProtocolError(f"action: {len(action)} characters, or some that cannot be printed")
        for key in ("project", "task", "tasks", "annotation", "annotations"):
            found = body.get(key)
            for item in found if isinstance(found, list) else [found]:
                number = item.get("id") if isinstance(item, dict) else None
                if isinstance(number, int) and not 0 <= number <= MOST_ID:
                    raise ProtocolError(f"{key}.id: {number} is no id")
        project = body.get("project")
        project_id = None
        if isinstance(project, dict):
            project_id = project.get("id")
            body = {**body, "project": {key: value for key, value in project.items() if key != "token"}}
        row = (time.time(), action, project_id if isinstance(project_id, int) else None, orjson.dumps(body))
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO events (received_at, action, project, body) VALUES (?, ?, ?, ?)", row
            )
        assert cursor.lastrowid is not None  # noqa: S101 - SQLite sets it after an INSERT
        return cursor.lastrowid

    def since(self, last_id: int = 0, limit: int = -1) -> list[Event]:
        """Events after ``last_id``, oldest first; at most ``limit`` unless that is negative."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT id, received_at, action, project, body FROM events WHERE id > ? ORDER BY id LIMIT ?",
                (last_id, limit),
            ).fetchall()
        return [
            Event(identity, received_at, action, project, orjson.loads(body))
            for identity, received_at, action, project, body in rows
        ]

    def last_id(self) -> int:
        """Number of the newest event, 0 without any."""
        with self._database.transaction() as connection:
            return int(connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])
