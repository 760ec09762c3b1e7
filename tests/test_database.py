from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from pathlib import Path

import pytest

import backend.database as db
from backend.database import Database
from backend.learning.annotations.events import EventLog
from backend.schema import MIGRATIONS


def _append(path: Path, number: int) -> None:
    database = Database(path)
    log = EventLog(database)
    for count in range(10):
        log.append({"action": f"{number}-{count}"})
    database.close()


def test_processes_that_start_at_once_share_a_new_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(tmp_path / "new.sqlite3", number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    database = Database(tmp_path / "new.sqlite3")
    assert len({event.action for event in EventLog(database).since()}) == 40
    database.close()


def test_threads_write_at_the_same_time(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite3")
    log = EventLog(database)
    threads = [
        threading.Thread(target=lambda: [log.append({"action": "ANNOTATION_CREATED"}) for _ in range(10)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = list(log.since())
    assert len(events) == 80
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert list(log.since(events[-2].id)) == [events[-1]]
    database.close()


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite3")
    insert = "INSERT INTO events (received_at, action, body) VALUES (0, ?, '')"

    def fail() -> None:
        with database.transaction() as connection:
            connection.execute(insert, ("X",))
            connection.execute(insert, (None,))

    with pytest.raises(sqlite3.IntegrityError):
        fail()
    assert list(EventLog(database).since()) == []
    database.close()


def test_what_is_acknowledged_is_on_disk(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite3")
    with database.transaction() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    database.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite3"
    Database(path).close()
    more = "-- with a semicolon; here\nALTER TABLE events ADD COLUMN extra TEXT;\nUPDATE events SET extra = 'x;y';"
    known = MIGRATIONS
    monkeypatch.setattr(db, "MIGRATIONS", (*known, more, "CREATE TABLE more (a);\nCREATE TABLE events (a);"))
    with pytest.raises(sqlite3.OperationalError, match="events already exists"):
        Database(path)
    monkeypatch.setattr(db, "MIGRATIONS", (*known, more))
    database = Database(path)
    assert EventLog(database).append({"action": "LATER"}) == 1
    with database.transaction() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(known) + 1,)
        assert connection.execute("SELECT action, extra FROM events").fetchall() == [("LATER", None)]
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
    database.close()
