"""Training jobs: wanted by the "Start training" button, by every N new accepted masks, or on the command line.

One job runs at a time over all processes of a state folder: who runs one holds a lock on ``<state>/training.lock``. The
kernel releases it when the process ends, however it ends, so neither process numbers nor clocks decide whether a runner
is alive. A job that is ``running`` while nobody holds the lock was killed, and goes on from its checkpoints.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Literal

from backend.database import Database

__all__ = ["Cause", "Job", "TrainingJobs", "want"]

Cause = Literal["button", "masks", "command"]
State = Literal["queued", "running", "done", "waits", "failed", "stopped"]
_COLUMNS = (
    "id, project, cause, state, masks, requested_at, started_at, ended_at, attempts, pid, progress, message, version,"
    " original"
)
MAX_ATTEMPTS = 10
"""How often in a row a job may die without getting any further."""


@dataclass(frozen=True)
class Job:
    """One training job.

    Attributes:
        id: its number.
        project: Label Studio's project.
        cause: what wanted it.
        state: ``queued``, ``running`` (or killed, see the module), ``done``, ``waits`` (ended for want of labels; the
            message says how many), ``failed`` or ``stopped``.
        masks: accepted masks of the project when it was wanted, then when it began.
        requested_at, started_at, ended_at: seconds since the epoch.
        attempts: how often it was begun since it last got further.
        pid: of the process that began it last.
        progress: share that is done, 0 to 1.
        message: what it does, or how it ended.
        version: the model version that came of it.
        original: the version that it is to make again, None for a training on the present annotations.
    """

    id: int
    project: int
    cause: Cause
    state: State
    masks: int
    requested_at: float
    started_at: float | None
    ended_at: float | None
    attempts: int
    pid: int | None
    progress: float
    message: str
    version: str | None
    original: str | None

    @property
    def finished(self) -> bool:
        """Whether nothing will be done about it any more."""
        return self.state in ("done", "waits", "failed", "stopped")


class TrainingJobs:
    """The jobs of one database. Safe for threads and processes; ``begin`` and what follows need the lock."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def want(self, project: int, cause: Cause, masks: int = 0) -> Job:
        """Queue a job, unless one of the project waits already; that one will see the newest annotations too."""
        with self.database.transaction(immediate=True) as connection:
            identity = want(connection, project, cause, masks)
        return self.job(identity)

    def add(self, project: int, original: str | None = None) -> Job:
        """A job of the command line, whatever else waits."""
        with self.database.transaction(immediate=True) as connection:
            identity = _insert(connection, project, "command", 0, original)
        return self.job(identity)

    def want_after(self, every: int) -> list[int]:
        """Queue a job for each project that has ``every`` accepted masks more than when its last one was made.

        Returns:
            the projects.
        """
        with self.database.transaction() as connection:
            due = _due(connection, every)
        if not due:
            return []  # mostly; the write lock is not asked for
        with self.database.transaction(immediate=True) as connection:
            due = _due(connection, every)
            for project, masks in due:
                want(connection, project, "masks", masks)
        return [project for project, _ in due]

    def jobs(self, project: int | None = None) -> list[Job]:
        """All jobs (of a project), newest first."""
        with self.database.transaction() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM training_jobs WHERE ? IS NULL OR project = ? ORDER BY id DESC",  # noqa: S608  # nosec B608 # a constant
                (project, project),
            ).fetchall()
        return [Job(*row) for row in rows]

    def job(self, identity: int) -> Job:
        """One job; raises KeyError if there is none of that number."""
        found = next((job for job in self.jobs() if job.id == identity), None)
        if found is None:
            raise KeyError(identity)
        return found

    def next(self) -> Job | None:
        """The job to run next: one that was killed, else the one that waits for longest."""
        waiting = [job for job in self.jobs() if not job.finished]
        return min(waiting, key=lambda job: (job.state != "running", job.id), default=None)

    def begin(self, identity: int, pid: int, masks: int) -> None:
        """The process ``pid`` runs the job now."""
        with self.database.transaction(immediate=True) as connection:
            connection.execute(
                "UPDATE training_jobs SET state = 'running', pid = ?, masks = ?, attempts = attempts + 1,"
                " started_at = coalesce(started_at, ?) WHERE id = ?",
                (pid, masks, time.time(), identity),
            )

    def report(self, identity: int, progress: float, message: str) -> bool:
        """Write down how far the job is; False if it is to stop."""
        with self.database.transaction(immediate=True) as connection:
            connection.execute(
                "UPDATE training_jobs SET attempts = CASE WHEN ? > progress THEN 1 ELSE attempts END,"
                " progress = max(progress, ?), message = ? WHERE id = ? AND state = 'running'",
                (progress, progress, message, identity),
            )
            state = connection.execute("SELECT state FROM training_jobs WHERE id = ?", (identity,)).fetchone()[0]
        return bool(state == "running")

    def name_version(self, identity: int, version: str) -> None:
        """Write down which version the job is about to publish."""
        with self.database.transaction(immediate=True) as connection:
            connection.execute("UPDATE training_jobs SET version = ? WHERE id = ?", (version, identity))

    def fail(self, identity: int, message: str) -> None:
        """The job ended without a version."""
        self._end(identity, "failed", message)

    def wait(self, identity: int, message: str) -> None:
        """The job ended without a version because there are too few labels; the next ones queue another."""
        self._end(identity, "waits", message)

    def stop(self, project: int) -> list[Job]:
        """Stop the jobs of a project: a waiting one is taken back, the running one ends at its next step."""
        stopped = [job for job in self.jobs(project) if not job.finished]
        for job in stopped:
            self._end(job.id, "stopped", "stopped by the user")
        return stopped

    def _end(self, identity: int, state: State, message: str) -> None:
        with self.database.transaction(immediate=True) as connection:
            connection.execute(
                "UPDATE training_jobs SET state = ?, message = ?, ended_at = ? WHERE id = ?",
                (state, message, time.time(), identity),
            )


def want(connection: sqlite3.Connection, project: int, cause: Cause, masks: int) -> int:
    """``TrainingJobs.want`` in the caller's transaction; the job's number."""
    waiting = connection.execute(
        "SELECT id FROM training_jobs WHERE project = ? AND state = 'queued'", (project,)
    ).fetchone()
    if waiting is not None:
        connection.execute("UPDATE training_jobs SET masks = max(masks, ?) WHERE id = ?", (masks, waiting[0]))
        return int(waiting[0])
    return _insert(connection, project, cause, masks, None)


def _insert(connection: sqlite3.Connection, project: int, cause: Cause, masks: int, original: str | None) -> int:
    cursor = connection.execute(
        "INSERT INTO training_jobs (project, cause, state, masks, requested_at, original)"
        " VALUES (?, ?, 'queued', ?, ?, ?)",
        (project, cause, masks, time.time(), original),
    )
    return int(cursor.lastrowid or 0)


def finish(connection: sqlite3.Connection, identity: int, version: str, message: str) -> None:
    """The job ended with a version; in the caller's transaction, with the version's own rows."""
    connection.execute(
        "UPDATE training_jobs SET state = 'done', progress = 1, message = ?, version = ?, ended_at = ? WHERE id = ?",
        (message, version, time.time(), identity),
    )


def _due(connection: sqlite3.Connection, every: int) -> list[tuple[int, int]]:
    """(project, accepted masks) where that many more were accepted than the last job knew."""
    rows = connection.execute(
        "SELECT project, sum(masks) AS accepted FROM live_annotations WHERE NOT skipped GROUP BY project HAVING"
        " accepted - coalesce((SELECT j.masks FROM training_jobs j WHERE j.project = live_annotations.project"
        " ORDER BY j.id DESC LIMIT 1), 0) >= ?",
        (every,),
    ).fetchall()
    return [(int(project), int(masks)) for project, masks in rows]
