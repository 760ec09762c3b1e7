"""One SQLite file for everything the server must not forget: events, image hashes, computed pre-labels.

WAL mode, so that readers never wait for a writer and several worker processes share the file; ``synchronous=FULL``, so
that a commit is on disk when it returns.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Database"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at REAL NOT NULL,
    action TEXT NOT NULL,
    project INTEGER,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_action ON events (action, id);
CREATE TABLE IF NOT EXISTS images (
    url TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    height INTEGER NOT NULL,
    width INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    etag TEXT,
    last_modified TEXT,
    checked_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS prelabels (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    model_version TEXT NOT NULL,
    computed_at REAL NOT NULL,
    body BLOB NOT NULL
);
"""
_BUSY_TIMEOUT = 30.0


class Database:
    """Connections to one SQLite file, one per thread. Safe for threads and processes.

    Args:
        path: the file; its folder is created.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        with self.transaction() as connection:
            connection.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; commits at the end of the block, rolls back when it raises."""
        connection = self._connection()
        with connection:
            yield connection

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            # Only close() touches it from another thread.
            connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, check_same_thread=False)
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a file to WAL mode; of several processes that do so at once, SQLite fails all but one without waiting."""
    until = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
