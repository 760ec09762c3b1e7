"""The annotations of Label Studio projects as they are now: what the stored webhooks add up to.

A webhook is only appended to the event log when it comes; the log is folded into the present state later, by whoever
wants to know it, from where it was folded last. Events may come twice, late, or not at all:

* of two states of an annotation the one that Label Studio updated last counts, whichever came first;
* what was deleted stays deleted, whatever event comes late;
* what the API says (a sync) counts more than all events before it, deletions and times too;
* an event that cannot be folded, or is dated in the future, is set aside with its reason;
* the same id with another ``unique_id`` is another annotation: the one that was created last counts;
* pressing "Start training" queues a training job, once for each event, in the transaction that folds it;
* what never came, ``pslg sync`` fetches (``annotation_sync``).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from backend.database import Database
from backend.learning.annotations import folding as annotation_folding
from backend.learning.annotations.changes import Change, changes
from backend.learning.annotations.events import Event, EventLog
from dataset_tools.errors import ProtocolError
from dataset_tools.label_studio.notes import stated
from dataset_tools.label_studio.regions import RegionInfo, is_accepted, read_info

__all__ = ["AnnotationRow", "AnnotationStore", "Project"]

logger = logging.getLogger(__name__)

_BATCH = 32  # events folded in one transaction: a webhook that comes meanwhile waits for it
_MICROSECONDS = 1_000_000
_COLUMNS = "SELECT id, task, created_at, updated_at, skipped, data, body FROM live_annotations WHERE project = ?"
_NEXT = _COLUMNS + " AND id > ? ORDER BY id LIMIT 1"
_OF_TASK = _COLUMNS + " AND task = ? ORDER BY id"


@dataclass(frozen=True)
class Project:
    """A project that events have named."""

    id: int
    title: str
    label_config: str


@dataclass(frozen=True)
class AnnotationRow:
    """One submitted or skipped annotation that still exists.

    Attributes:
        id, project, task: Label Studio's ids.
        created_at, updated_at: seconds since the epoch, by Label Studio's clock.
        skipped: the annotator pressed "Skip" (``was_cancelled``).
        data: the task's data: the image's address, the expression.
        body: the annotation as Label Studio sent it, with its ``result``.
    """

    id: int
    project: int
    task: int
    created_at: float
    updated_at: float
    skipped: bool
    data: Mapping[str, Any]
    body: Mapping[str, Any]

    @property
    def annotator(self) -> int | None:
        """Id of the user who completed it."""
        user = self.body.get("completed_by")
        user = user.get("id") if isinstance(user, dict) else user
        return user if isinstance(user, int) else None

    @property
    def lead_time(self) -> float | None:
        """Seconds that the annotator spent on it, by the editor's clock."""
        seconds = self.body.get("lead_time")
        return float(seconds) if isinstance(seconds, int | float) else None

    @property
    def parent_prediction(self) -> int | None:
        """Id of the prediction it began from."""
        parent = self.body.get("parent_prediction")
        return parent if isinstance(parent, int) else None

    @property
    def regions(self) -> tuple[RegionInfo, ...]:
        """What its accepted regions say of themselves: label, origin, model, clicks, score. No mask is decoded."""
        return tuple(read_info(result, self.body) for result in stated(self.body["result"]) if is_accepted(result))


class AnnotationStore:
    """The present state of all annotations of one database. Safe for threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.events = EventLog(database)

    def refresh(self) -> int:
        """Fold the events that came since the last time; the number of the last one."""
        while True:
            with self.database.transaction() as connection:
                reached = _reached(connection)
            events = self.events.since(reached, _BATCH)
            if not events:
                return reached
            found = [(event, *_understood(event)) for event in events]
            with self.database.transaction(immediate=True) as connection:
                if _reached(connection) != reached:
                    continue  # another process was faster
                for event, event_changes, reason in found:
                    _fold(connection, event, event_changes, reason)
                connection.execute("UPDATE folding SET event = ?", (events[-1].id,))

    def set_aside(self) -> list[tuple[int, str]]:
        """(event, reason) of the events that could not be folded."""
        self.refresh()
        with self.database.transaction() as connection:
            return connection.execute("SELECT event, reason FROM events_set_aside ORDER BY event").fetchall()

    def projects(self) -> list[Project]:
        """Every project that an event or a sync has named, by id."""
        self.refresh()
        with self.database.transaction() as connection:
            rows = connection.execute("SELECT id, title, label_config FROM projects ORDER BY id").fetchall()
        return [Project(*row) for row in rows]

    def project(self, project: int) -> Project | None:
        """One project, None if nothing is known of it."""
        return next((found for found in self.projects() if found.id == project), None)

    def annotations(self, project: int) -> Iterator[AnnotationRow]:
        """The annotations of a project that exist now, skipped ones too, by id; read one by one."""
        self.refresh()
        last = -1
        while rows := self._rows(_NEXT, project, last):
            yield from rows
            last = rows[-1].id

    def annotated_tasks(self, project: int) -> Iterator[list[AnnotationRow]]:
        """The same, all of one task at a time, by task."""
        self.refresh()
        with self.database.transaction() as connection:
            tasks = connection.execute(
                "SELECT DISTINCT task FROM live_annotations WHERE project = ? ORDER BY task", (project,)
            ).fetchall()
        for (task,) in tasks:
            if rows := self._rows(_OF_TASK, project, task):
                yield rows

    def of_task(self, project: int, task: int) -> list[AnnotationRow]:
        """The annotations of one task that exist now, skipped ones too, by id."""
        return self._rows(_OF_TASK, project, task)

    def state(self, project: int) -> tuple[int, ...]:
        """What changes whenever an annotation of the project does; cheap: one row of counts."""
        with self.database.transaction() as connection:
            row = connection.execute(
                "SELECT count(*), coalesce(max(event), 0), coalesce(sum(updated_at), 0), coalesce(sum(skipped), 0)"
                " FROM live_annotations WHERE project = ?",
                (project,),
            ).fetchone()
        return tuple(map(int, row))

    def signatures(self, project: int) -> dict[int, str]:
        """Of every annotated task what changes when its annotations do; cheap: nothing of them is read."""
        with self.database.transaction() as connection:
            rows = connection.execute(
                "SELECT task, group_concat(id || ':' || event || ':' || updated_at || ':' || skipped) FROM"
                " (SELECT * FROM live_annotations WHERE project = ? ORDER BY id) GROUP BY task",
                (project,),
            ).fetchall()
        return {int(task): str(signature) for task, signature in rows}

    def _rows(self, query: str, project: int, value: int) -> list[AnnotationRow]:
        with self.database.transaction() as connection:
            found = connection.execute(query, (project, value)).fetchall()
        return [
            AnnotationRow(
                id=identity,
                project=project,
                task=task,
                created_at=created / _MICROSECONDS,
                updated_at=updated / _MICROSECONDS,
                skipped=bool(skipped),
                data=orjson.loads(data),
                body=orjson.loads(body),
            )
            for identity, task, created, updated, skipped, data, body in found
        ]

    def accepted_masks(self, project: int) -> int:
        """Outlined objects in the project's submitted annotations."""
        self.refresh()
        with self.database.transaction() as connection:
            return annotation_folding.accepted_masks(connection, project)

    def known_before(self, project: int, event: int) -> list[tuple[int, int]]:
        """(task, annotation) of a project that exist now and were last heard of by ``event`` or before."""
        self.refresh()
        with self.database.transaction() as connection:
            return connection.execute(
                "SELECT task, id FROM live_annotations WHERE project = ? AND event <= ? ORDER BY task, id",
                (project, event),
            ).fetchall()

    def apply_sync(self, project: int, found: Sequence[Change], before: int) -> None:
        """Take over what Label Studio's API said.

        Args:
            project: the project that was asked for.
            found: its state; what is not in it stays as it is.
            before: number of the last event before the API was asked. What the store knows from events up to then is
                older than ``found``, whatever the times in it say.
        """
        self.refresh()
        with self.database.transaction(immediate=True) as connection:
            for change in found:
                annotation_folding.apply_change(connection, project, change, before, before)


def _understood(event: Event) -> tuple[list[Change], str | None]:
    """The event's changes, and why there are no more of them; one that cannot be read does not stand in the way."""
    found: list[Change] = []
    try:
        for change in changes(event):
            found.append(change)
    except (ProtocolError, TypeError, ValueError, OverflowError, RecursionError) as error:
        return found, str(error)
    return found, None


def _fold(connection: sqlite3.Connection, event: Event, found: Sequence[Change], reason: str | None) -> None:
    """Write an event's changes, or set it aside with the reason: one bad event must not stop those after it."""
    connection.execute("SAVEPOINT event")
    try:
        annotation_folding.apply_event(connection, event, found)
    except sqlite3.OperationalError:
        raise  # of the file, not of the event: a full disk, a lock
    except (sqlite3.Error, OverflowError, ValueError, TypeError) as error:
        connection.execute("ROLLBACK TO event")
        reason = f"{type(error).__name__}: {error}"
    connection.execute("RELEASE event")
    if reason is not None:
        logger.warning("event %d (%s) is set aside: %s", event.id, event.action, reason)
        connection.execute("INSERT OR REPLACE INTO events_set_aside (event, reason) VALUES (?, ?)", (event.id, reason))


def _reached(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT event FROM folding").fetchone()[0])
