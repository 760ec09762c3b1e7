"""One file with all of a state folder that cannot be computed again; made while servers run, put back while none does.

The file is a tar with, in this order: ``server.sqlite3`` as it was at one moment, the trained versions, the images that
trainings learnt from, and ``backup.json`` with the sha256 of each. Embeddings, features and replay scenes are left out:
they are made again when they are wanted. A version that is being trained is left out too; its job begins again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from backend import __version__
from backend.database import Database
from backend.state import StateFolder, process_lock
from dataset_tools import atomic
from dataset_tools.errors import ConfigError, PslgError

__all__ = ["StateBackup", "back_up", "restore"]

_MANIFEST = "backup.json"
_KIND = "pslg-state"
_TRIES = 3
_BLOCK = 1 << 20


@dataclass(frozen=True)
class StateBackup:
    """What a backup holds.

    Attributes:
        made_at: seconds since the epoch.
        files: bytes by name, relative to the state folder.
        events: webhooks in the database.
        versions: names of the trained versions.
    """

    made_at: float
    files: Mapping[str, int]
    events: int
    versions: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


class _PrunedError(PslgError):
    """A trained version was removed while it was being copied."""


def back_up(state: StateFolder, out: Path, *, images: bool = True) -> StateBackup:
    """Write a backup of a state folder to ``out``, whole or not at all, readable by its owner only.

    Servers and trainings may go on meanwhile: the database is copied as it is at one moment, and what it names is
    copied after it.

    Args:
        state: the folder.
        out: the tar file; must not be there yet.
        images: also the image files of trainings, without which a version cannot be made again once they are gone
            from Label Studio.

    Raises:
        ConfigError: there is no state, its database is damaged, or ``out`` exists.
        OSError: the disk is full, or a file cannot be read.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; a backup is never written over another file")
    if not state.database.exists():
        raise ConfigError(
            f"{state.root} holds no state: there is no {state.database.name} (PSLG_STATE_DIR, --state-dir)"
        )
    Database.check(state.database)
    for _ in range(_TRIES):
        with contextlib.suppress(_PrunedError):
            return _back_up(state, out, images=images)
    raise ConfigError(
        f"trained versions in {state.models} were removed {_TRIES} times while they were copied; try again"
    )


def _back_up(state: StateFolder, out: Path, *, images: bool) -> StateBackup:
    made_at = time.time()
    with _snapshot(state, out) as copy, atomic.open_bytes(out) as file, tarfile.open(fileobj=file, mode="w") as tar:
        os.fchmod(file.fileno(), 0o600)
        with closing(sqlite3.connect(copy)) as database:
            versions = tuple(row[0] for row in database.execute("SELECT DISTINCT version FROM versions ORDER BY 1"))
            (events,) = database.execute("SELECT count(*) FROM events").fetchone()
        hashes = {state.database.name: _add(tar, copy, state.database.name)}
        for path in _files(state, versions, images=images):
            name = path.relative_to(state.root).as_posix()
            hashes[name] = _add(tar, path, name)
        sizes = {member.name: member.size for member in tar.getmembers()}
        about = {"kind": _KIND, "release": __version__, "made_at": made_at, "files": hashes, "events": events}
        data = json.dumps({**about, "versions": versions}, indent=1).encode()
        tar.addfile(_entry(_MANIFEST, len(data)), io.BytesIO(data))
    return StateBackup(made_at, sizes, events, versions)


@contextmanager
def _snapshot(state: StateFolder, out: Path) -> Iterator[Path]:
    """A copy of the database as it is now, beside ``out``; removed at the end."""
    copy = out.with_name(f".{out.name}.{os.getpid()}.sqlite3")
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(state.database)) as source, closing(sqlite3.connect(copy)) as target:
            copy.chmod(0o600)
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file, without a -wal beside it
            found = target.execute("PRAGMA quick_check").fetchone()[0]
        if found != "ok":
            raise ConfigError(f"{state.database} is damaged and was not backed up: {found}")
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _files(state: StateFolder, versions: tuple[str, ...], *, images: bool) -> Iterator[Path]:
    for version in versions:
        folder = state.models / version
        if not folder.is_dir():
            raise _PrunedError
        yield from sorted(path for path in folder.rglob("*") if path.is_file())
    if images:
        yield from sorted(path for path in state.images.glob("??/*") if path.is_file())


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(time.time())
    return entry


def _add(tar: tarfile.TarFile, path: Path, name: str) -> str:
    """Add a file; its sha256."""
    try:
        with path.open("rb") as file:
            hashed = _Hashed(file)
            tar.addfile(_entry(name, os.fstat(file.fileno()).st_size), hashed)
            return hashed.sha256.hexdigest()
    except FileNotFoundError:
        raise _PrunedError from None


class _Hashed:
    """What is read from a file, hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def restore(file: Path, state: StateFolder, *, replace: bool = False) -> tuple[StateBackup, Path | None]:
    """Put a backup in the place of a state folder, all of it or, if anything is wrong, nothing.

    Args:
        file: what ``back_up`` wrote.
        state: the folder; missing or empty unless ``replace``.
        replace: move what is there aside, to a new folder in it.

    Returns:
        What was put back, and where the earlier folder is now, if there was one.

    Raises:
        ConfigError: the file is no backup, is damaged, or is of a later release; a state is there already, or a server
            uses it.
        OSError: the disk is full or the folder cannot be written.
    """
    present = _replaced(state)
    if present and not replace:
        raise ConfigError(
            f"{state.root} holds a state already: give another folder (--state-dir), or --replace, which moves it aside"
        )
    if present:
        _require_unused(state)
    # Inside the folder, not beside it: it may be a volume of its own, which takes no other folder's place.
    part = state.root / f".restore-{os.getpid()}"
    part.mkdir(mode=0o700, parents=True)
    aside: Path | None = None
    try:
        backup = _extract(file, part)
        Database.check(StateFolder(part).database)
        if present:
            aside = state.root / f"before-{time.strftime('%Y%m%dT%H%M%S')}"
            aside.mkdir(mode=0o700)
            for path in present:
                path.rename(aside / path.name)
        for path in sorted(part.iterdir()):  # the database last: without it there is no state
            path.rename(state.root / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return backup, aside


def _replaced(state: StateFolder) -> list[Path]:
    """What of a state is there and would have to make room, the database first."""
    files = [state.database.with_name(state.database.name + suffix) for suffix in ("", "-wal", "-shm")]
    return [path for path in (*files, state.models, state.images, state.sync_root) if path.exists()]


def _require_unused(state: StateFolder) -> None:
    for lock in (state.keeper_lock, state.training_lock):
        with process_lock(lock) as free:
            if not free:
                raise ConfigError(f"a server or a training uses {state.root}: stop it, then restore")


def _extract(file: Path, into: Path) -> StateBackup:
    """Write the files of a backup into a folder, each compared with its hash."""
    hashes: dict[str, str] = {}
    sizes: dict[str, int] = {}
    about: dict[str, Any] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                source = tar.extractfile(member) if member.isfile() else None
                if source is None or not _is_ours(member.name) or member.name in hashes:
                    raise ConfigError(f"{file} is no backup of a state: it holds {member.name!r}")
                if member.name == _MANIFEST:
                    about = json.loads(source.read())
                    break
                hashes[member.name], sizes[member.name] = _write(source, into / member.name), member.size
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ConfigError(f"{file} is no backup of a state, or is damaged: {error}") from error
    if about.get("kind") != _KIND:
        raise ConfigError(f"{file} is no backup of a state, or is cut short: it ends without {_MANIFEST}")
    wrong = sorted(hashes.items() ^ about["files"].items())
    if wrong:
        raise ConfigError(f"{file} is damaged: {wrong[0][0]} is not what was backed up")
    return StateBackup(about["made_at"], sizes, about["events"], tuple(about["versions"]))


def _is_ours(name: str) -> bool:
    """Whether a backup may hold a file of this name."""
    if name in (_MANIFEST, StateFolder(Path()).database.name):
        return True
    parts = PurePosixPath(name).parts
    return len(parts) > 2 and parts[0] in ("models", "images") and ".." not in parts and "\0" not in name


def _write(source: IO[bytes], path: Path) -> str:
    digest = hashlib.sha256()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        while block := source.read(_BLOCK):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
