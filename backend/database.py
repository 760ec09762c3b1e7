"""One SQLite file for everything that must not be forgotten: events and what they add up to, image hashes, pre-labels.

WAL mode, so that readers never wait for a writer and several worker processes share the file; ``synchronous=FULL``, so
that a commit is on disk when it returns.

What is in it: ``backend.schema``. A file of an earlier release is brought up to date when it is opened, all or nothing;
one of a later release is refused.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backend import __version__
from backend.schema import MIGRATIONS
from backend.state import StateFolder
from dataset_tools.errors import ConfigError

__all__ = ["Database"]

_BUSY_TIMEOUT = 30.0
_QUIET = 60.0
_CACHE_KIB = 256
_STATE = "the state folder"
_CANNOT_WRITE = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO)

logger = logging.getLogger(__name__)


class Database:
    """Connections to one SQLite file, one per thread. Safe for threads and processes.

    Args:
        path: the file; its folder is created.
        can_wait: where nothing can be written (a full or read-only disk), go on with what the file holds, or with
            nothing, and refuse to write, until it can: looked at every minute. ``trouble`` says so.

    Raises:
        ConfigError: a later release wrote the file, it is damaged, or it cannot be opened.
    """

    def __init__(self, path: Path, *, can_wait: bool = False) -> None:
        self.path = path
        self._troubles: dict[str, tuple[str, float]] = {}
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._openings = 0
        self._looked_at: float | None = None
        try:
            self._open()
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
                raise  # a migration that is wrong, not the disk
            if not can_wait or not _cannot_write(error):
                raise _unreadable(path, error) from error
            self._wait(error)
            logger.error("%s", self._troubles[_STATE][0])

    def _open(self) -> None:
        """Open the file for writing, in this thread, and bring it up to date."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            connection = self._connected()
            with contextlib.suppress(OSError):  # of somebody else: not ours to change
                if self.path.stat().st_mode & 0o077:
                    self.path.chmod(0o600)
            if _version(connection, self.path) < len(MIGRATIONS):
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    _migrate(connection, self.path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise _unreadable(self.path, error) from error

    @contextmanager
    def transaction(self, *, immediate: bool = False) -> Iterator[sqlite3.Connection]:
        """This thread's connection; commits at the end of the block, rolls back when it raises.

        Args:
            immediate: take the write lock at once, so that nothing read in the block can be out of date when it writes.
        """
        connection = self._connection()
        with connection:
            if immediate:
                connection.execute("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def spared(self, what: str) -> Iterator[None]:
        """A block that may fail: on a full or read-only disk, or with a damaged file, clicks go on without it.

        The failure is logged, once a minute at most, and stands in ``trouble`` until the same thing works again.

        Args:
            what: is written or read, for the message.
        """
        try:
            yield
        except sqlite3.Error as error:
            now = time.monotonic()
            last = self._troubles.get(what, ("", -_QUIET))[1]
            told = now - last >= _QUIET
            self._troubles[what] = (_reason(what, self.path, error), now if told else last)
            if told:
                logger.error("%s", self._troubles[what][0])
        else:
            self._troubles.pop(what, None)

    @property
    def trouble(self) -> str | None:
        """What cannot be read or written at present, and what to do; None if all is well."""
        return "; ".join(reason for reason, _ in list(self._troubles.values())) or None

    @classmethod
    def of_state(cls, state_dir: Path, *, can_wait: bool = False) -> Database:
        """The database of a server's state folder."""
        return cls(StateFolder(state_dir).database, can_wait=can_wait)

    @staticmethod
    def check(path: Path) -> None:
        """Look whether this release can use the file, if there is one, and change nothing.

        Raises:
            ConfigError: a later release wrote it, or it is no SQLite file.
        """
        if not path.exists():
            return
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            _version(connection, path)

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        """This thread's."""
        if self._looked_at is not None and time.monotonic() - self._looked_at > _QUIET:
            self._look_again()
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None and self._local.opening == self._openings:
            return connection
        return self._connected() if self._looked_at is None else self._keep(self._stand_in())

    def _connected(self) -> sqlite3.Connection:
        """A connection of this thread's that can write."""
        if not self.path.exists():  # SQLite makes its other files with the rights of this one
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        # Only close() touches it from another thread.
        connection = self._keep(sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, check_same_thread=False))
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")  # for each thread: the system caches the file once
        return connection

    def _keep(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        self._local.connection, self._local.opening = connection, self._openings
        with self._lock:
            self._connections.append(connection)
        return connection

    def _look_again(self) -> None:
        """Whether the file can be opened for writing by now; one thread looks, the others go on."""
        if not self._opening.acquire(blocking=False):
            return
        try:
            if self._looked_at is None:
                return
            self._openings += 1
            self._open()
            self._looked_at = None
            self._troubles.clear()
            logger.warning("%s can be written again", self.path)
        except (OSError, sqlite3.Error, ConfigError) as error:
            self._wait(error)
        finally:
            self._opening.release()

    def _wait(self, error: Exception) -> None:
        self._looked_at = time.monotonic()
        self._troubles[_STATE] = (_reason(_STATE, self.path, error), self._looked_at)
        self._local.connection = None  # the one that could not write

    def _stand_in(self) -> sqlite3.Connection:
        """What can be read of the file, else an empty one; writing to it fails as on a read-only disk."""
        for how in ("mode=ro", "immutable=1"):
            connection = None
            with contextlib.suppress(sqlite3.Error, ConfigError):
                address = f"{self.path.absolute().as_uri()}?{how}"
                connection = sqlite3.connect(address, uri=True, timeout=_BUSY_TIMEOUT, check_same_thread=False)
                connection.execute("SELECT event FROM folding")  # without its log, a file opens and cannot be read
                if _version(connection, self.path) == len(MIGRATIONS):
                    return connection
            if connection is not None:
                connection.close()
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        with connection:
            _migrate(connection, self.path)
        connection.execute("PRAGMA query_only = 1")
        return connection


def _reason(what: str, path: Path, error: Exception) -> str:
    damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
    cure = (
        "stop the server and bring the file back from a backup, or move it away: `pslg sync` fetches annotations again"
        if damaged
        else "free disk space, and look whether the folder may be written"
    )
    return f"{what}: {path}: {error}; clicks and pre-labels go on from memory; {cure}"


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """How many migrations the file has seen; raises ConfigError if they are more than this release knows."""
    try:
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise _unreadable(path, error) from error
    if found > len(MIGRATIONS):
        raise ConfigError(
            f"{path} has version {found} and was written by a later release; this one ({__version__}) knows versions"
            f" up to {len(MIGRATIONS)}: install the later release again, or choose another state folder"
            " (PSLG_STATE_DIR)"
        )
    return found


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} cannot be opened: {error}; free disk space, or bring the file back from a backup")


def _cannot_write(error: OSError | sqlite3.OperationalError) -> bool:
    """Whether the disk is full, read-only or failing, or the folder not ours to write in: all that may yet change."""
    if isinstance(error, OSError):
        return error.errno in _CANNOT_WRITE
    return error.sqlite_errorcode & 0xFF in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
    )


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file up to date, in the caller's transaction, which holds the write lock."""
    for number in range(_version(connection, path), len(MIGRATIONS)):  # another process may have been faster
        statement = ""
        for line in MIGRATIONS[number].splitlines():
            statement += f"{line}\n"
            if sqlite3.complete_statement(statement):  # executescript would commit before it begins
                connection.execute(statement)
                statement = ""
        connection.execute(f"PRAGMA user_version = {number + 1}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a file to WAL mode; of several processes that do so at once, SQLite fails all but one without waiting."""
    until = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            waits = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not waits or time.monotonic() > until:
                raise
            time.sleep(0.02)
