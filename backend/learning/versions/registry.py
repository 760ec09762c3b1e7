"""Model versions that were trained on a project's annotations: where they lie, where they come from, which one serves.

    <state>/models/<version>/       what ``train_project`` wrote: config.yaml, weights, training.json
                     version.json   the manifest: all that is needed to make the version again
    <state>/models/.job-<number>/   a version that is being trained

A folder gets its name only when everything in it is on disk. Which version serves a project is one row of
``promotions``, written in one transaction: there is no half-promoted version. The row before it says what a rollback
returns to. Versions serve their own project only; a project without a promotion gets the base config's version.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from backend.database import Database
from backend.learning.versions.manifest import MANIFEST, Manifest
from backend.pipeline.weights.records import RECORD_SUFFIX, sha256_of
from backend.state import StateFolder
from dataset_tools import atomic
from dataset_tools.errors import ConfigError, WeightsError

__all__ = ["ModelVersions", "Promotion", "VersionRow"]

CONFIG = "config.yaml"
_LAST_PROMOTION = (
    "SELECT version, previous, promoted_at, reason FROM promotions WHERE project = ? AND config = ?"
    " ORDER BY id DESC LIMIT 1"
)


@dataclass(frozen=True)
class VersionRow:
    """A finished version.

    Attributes:
        created_at: seconds since the epoch.
        active: it serves its project now.
        served: it was promoted at least once.
    """

    manifest: Manifest
    created_at: float
    active: bool
    served: bool

    @property
    def status(self) -> str:
        """``active``, ``earlier`` (served once), ``waits`` (for labels to be judged with), ``rejected`` (by the gate)
        or ``accepted`` (but never promoted).
        """
        if self.active:
            return "active"
        if self.served:
            return "earlier"
        return "accepted" if self.manifest.accepted else "waits" if self.manifest.gate.get("waits") else "rejected"


@dataclass(frozen=True)
class Promotion:
    """One change of what serves a project; ``version`` None is the base config's own version."""

    version: str | None
    previous: str | None
    promoted_at: float
    reason: str


class ModelVersions:
    """The versions of one state folder. Safe for threads and processes."""

    def __init__(self, database: Database, state_dir: Path) -> None:
        self._database = database
        self.folder = StateFolder(state_dir).models

    def path(self, version: str) -> Path:
        """The folder of a version, whether or not it is there."""
        if "/" in version or version.startswith("."):
            raise ConfigError(f"{version!r} is no model version; see pslg models list")
        return self.folder / version

    def config_path(self, version: str) -> Path:
        """The pipeline config of a version, for ``load_pipeline``."""
        return self.path(version) / CONFIG

    def active(self, project: int, config: str) -> str | None:
        """The version that serves a project under the base config named ``config``; None: the base version."""
        with self._database.transaction() as connection:
            row = connection.execute(_LAST_PROMOTION, (project, config)).fetchone()
        return None if row is None else row[0]

    def all_active(self, config: str) -> dict[int, str]:
        """Project -> version, where a promoted one serves."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT project, version FROM promotions WHERE id IN"
                " (SELECT max(id) FROM promotions WHERE config = ? GROUP BY project) AND version IS NOT NULL",
                (config,),
            ).fetchall()
        return dict(rows)

    def rows(self, project: int | None = None) -> list[VersionRow]:
        """All versions (of a project), newest first."""
        with self._database.transaction() as connection:
            found = connection.execute(
                "SELECT v.manifest, v.created_at, EXISTS (SELECT 1 FROM promotions p WHERE p.project = v.project AND"
                " p.version = v.version), v.version = (SELECT p.version FROM promotions p WHERE p.project = v.project"
                " AND p.config = v.config ORDER BY p.id DESC LIMIT 1)"
                " FROM versions v WHERE ? IS NULL OR v.project = ? ORDER BY v.rowid DESC",
                (project, project),
            ).fetchall()
        return [
            VersionRow(Manifest.from_json(manifest), created_at, active=bool(active), served=bool(served))
            for manifest, created_at, served, active in found
        ]

    def row(self, version: str, project: int | None = None) -> VersionRow:
        """One version.

        Raises:
            ConfigError: there is none of that name, or several projects have it.
        """
        found = [row for row in self.rows(project) if row.manifest.version == version]
        if not found:
            raise ConfigError(f"there is no model version {version!r} in {self.folder}; see pslg models list")
        if len(found) > 1:
            projects = ", ".join(str(row.manifest.project) for row in found)
            raise ConfigError(f"{version} belongs to the projects {projects}; name one with --project")
        return found[0]

    def history(self, project: int, config: str) -> list[Promotion]:
        """What served a project, newest first."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT version, previous, promoted_at, reason FROM promotions WHERE project = ? AND config = ?"
                " ORDER BY id DESC",
                (project, config),
            ).fetchall()
        return [Promotion(*row) for row in rows]

    def publish(self, staging: Path, manifest: Manifest) -> Manifest:
        """Give a trained folder its name, once every file of it is on disk; the manifest with the files' hashes.

        A folder of that version that is there already is the same one, by its name, and stays.

        Raises:
            OSError: the disk is full or the folder cannot be written; the version then has no folder.
        """
        files = {
            file.relative_to(staging).as_posix(): sha256_of(file)
            for file in sorted(staging.rglob("*"))
            if file.is_file() and file.name != MANIFEST and not file.name.endswith(RECORD_SUFFIX)
        }
        manifest = Manifest(**{**asdict(manifest), "files": files})
        atomic.write_bytes(staging / MANIFEST, orjson.dumps(asdict(manifest), option=orjson.OPT_INDENT_2))
        for place in (*(staging / name for name in files), staging):
            _flush(place)
        target = self.path(manifest.version)
        if target.exists():
            shutil.rmtree(staging)
        else:
            staging.rename(target)
        _flush(self.folder)
        return manifest

    def published(self, version: str) -> Manifest:
        """The manifest in a version's folder; raises ConfigError if it is missing or unreadable."""
        file = self.path(version) / MANIFEST
        try:
            return Manifest.from_json(file.read_bytes())
        except OSError as error:
            raise ConfigError(f"{version} has no manifest at {file}: {error.strerror}") from error

    def verify(self, version: str, project: int | None = None) -> None:
        """Compare every file of a version with the hash recorded when it was made.

        Raises:
            ConfigError: there is no such version.
            WeightsError: a file is missing or damaged; the message names it.
        """
        for name, expected in self.row(version, project).manifest.files.items():
            file = self.path(version) / name
            if not file.is_file():
                raise WeightsError(f"model version {version} is damaged: {file} is missing")
            if (digest := sha256_of(file)) != expected:
                raise WeightsError(f"model version {version} is damaged: {file} has sha256 {digest}, not {expected}")

    def promote(self, version: str, reason: str, project: int | None = None) -> None:
        """Let a version serve its project from now on.

        Raises:
            ConfigError: there is no such version, or it serves already.
            WeightsError: its files are damaged.
        """
        row = self.row(version, project)
        self.verify(version, project)
        if row.active:
            raise ConfigError(f"{version} already serves project {row.manifest.project}")
        with self._database.transaction(immediate=True) as connection:
            insert_promotion(connection, row.manifest, reason)

    def prune(self, project: int, config: str, keep: int) -> list[str]:
        """Remove old versions of a project; their names.

        What serves and what a rollback would return to stay, and of the others the ``keep`` newest. Predictions that a
        removed version left in Label Studio stay, and so do the promotions in the history.
        """
        rows = [row for row in self.rows(project) if row.manifest.config == config]
        removed = _removable(rows, self.history(project, config), keep)
        for version in removed:
            with self._database.transaction(immediate=True) as connection:
                connection.execute("DELETE FROM versions WHERE version = ? AND project = ?", (version, project))
                shared = connection.execute("SELECT count(*) FROM versions WHERE version = ?", (version,)).fetchone()[0]
            if not shared:
                shutil.rmtree(self.path(version), ignore_errors=True)
        return removed

    def rollback(self, project: int, config: str, reason: str = "rolled back") -> str | None:
        """Return to the version that served the project before the present one; that version, None for the base.

        Raises:
            ConfigError: the base version serves.
            WeightsError: the version to return to is damaged.
        """
        with self._database.transaction(immediate=True) as connection:
            present = _last_promotion(connection, project, config)
            if present is None or present.version is None:
                raise ConfigError(f"project {project} is served by the base version of {config}: nothing to roll back")
            if present.previous is not None:
                self.verify(present.previous, project)
            before = connection.execute(
                "SELECT previous FROM promotions WHERE project = ? AND config = ? AND version = ? ORDER BY id LIMIT 1",
                (project, config, present.previous),
            ).fetchone()
            _insert(connection, project, config, present.previous, None if before is None else before[0], reason)
        return present.previous


def _removable(rows: Sequence[VersionRow], history: Sequence[Promotion], keep: int) -> list[str]:
    """Of a project's versions, newest first, those that neither serve, nor are next in a rollback, nor are new."""
    needed = {name for one in history[:1] for name in (one.version, one.previous)}
    others = [row.manifest.version for row in rows if row.manifest.version not in needed]
    return others[keep:]


def insert_version(connection: sqlite3.Connection, manifest: Manifest) -> None:
    """Record a published version in the caller's transaction."""
    row = (manifest.version, manifest.project, manifest.config, time.time(), orjson.dumps(asdict(manifest)))
    connection.execute(
        "INSERT OR REPLACE INTO versions (version, project, config, created_at, manifest) VALUES (?, ?, ?, ?, ?)", row
    )


def insert_promotion(connection: sqlite3.Connection, manifest: Manifest, reason: str) -> None:
    """Let a version serve its project, in the caller's transaction; no change where it does already."""
    present = _last_promotion(connection, manifest.project, manifest.config)
    previous = None if present is None else present.version
    if previous != manifest.version:
        _insert(connection, manifest.project, manifest.config, manifest.version, previous, reason)


def forget_promotions(connection: sqlite3.Connection, project: int) -> None:
    """Serve the base version again, in the caller's transaction: the project is another one under the same id."""
    connection.execute("DELETE FROM promotions WHERE project = ?", (project,))


def _insert(
    connection: sqlite3.Connection, project: int, config: str, version: str | None, previous: str | None, reason: str
) -> None:
    connection.execute(
        "INSERT INTO promotions (project, config, version, previous, promoted_at, reason) VALUES (?, ?, ?, ?, ?, ?)",
        (project, config, version, previous, time.time(), reason),
    )


def _last_promotion(connection: sqlite3.Connection, project: int, config: str) -> Promotion | None:
    row = connection.execute(_LAST_PROMOTION, (project, config)).fetchone()
    return None if row is None else Promotion(*row)


def _flush(path: Path) -> None:
    """fsync of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
