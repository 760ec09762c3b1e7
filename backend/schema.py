"""The tables of the state folder's database, as the migrations that made them.

``PRAGMA user_version`` is the number of ``MIGRATIONS`` that a file has seen. To change the schema, append a migration:
those that are there are never changed. The first one makes what files had before they had a number, hence its IF NOT
EXISTS.
"""

from __future__ import annotations

__all__ = ["MIGRATIONS"]

_TABLES = """
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
CREATE TABLE IF NOT EXISTS image_features (
    sha256 TEXT NOT NULL,
    encoder TEXT NOT NULL,
    vector BLOB NOT NULL,
    hash BLOB,
    PRIMARY KEY (sha256, encoder)
) WITHOUT ROWID;
-- What the events up to folding.event add up to (backend.learning.annotations.store). Times are microseconds of
-- Label Studio's clock; a deleted row stays, so that an update that comes late does not bring it back.
CREATE TABLE IF NOT EXISTS folding (id INTEGER PRIMARY KEY CHECK (id = 1), event INTEGER NOT NULL);
INSERT OR IGNORE INTO folding (id, event) VALUES (1, 0);
CREATE TABLE IF NOT EXISTS projects (
    id INTEGER PRIMARY KEY,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    title TEXT NOT NULL,
    label_config TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tasks (
    project INTEGER NOT NULL,
    id INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE TABLE IF NOT EXISTS annotations (
    project INTEGER NOT NULL,
    id INTEGER NOT NULL,
    task INTEGER,
    unique_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    event INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    masks INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE INDEX IF NOT EXISTS annotations_by_task ON annotations (project, task);
CREATE VIEW IF NOT EXISTS live_annotations AS
    SELECT a.*, t.data FROM annotations a JOIN tasks t ON t.project = a.project AND t.id = a.task
    WHERE NOT a.deleted AND NOT t.deleted;
-- Training (backend.learning.versions.jobs) and what came of it (backend.learning.versions.registry).
CREATE TABLE IF NOT EXISTS training_jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL,
    cause TEXT NOT NULL,
    state TEXT NOT NULL,
    masks INTEGER NOT NULL,
    requested_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    pid INTEGER,
    progress REAL NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '',
    version TEXT,
    original TEXT
);
CREATE INDEX IF NOT EXISTS training_jobs_by_project ON training_jobs (project, id);
CREATE TABLE IF NOT EXISTS versions (
    version TEXT NOT NULL,
    project INTEGER NOT NULL,
    config TEXT NOT NULL,
    created_at REAL NOT NULL,
    manifest BLOB NOT NULL,
    PRIMARY KEY (version, project)
);
CREATE TABLE IF NOT EXISTS promotions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL,
    config TEXT NOT NULL,
    version TEXT,
    previous TEXT,
    promoted_at REAL NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS promotions_by_project ON promotions (project, config, id);
"""
_SET_ASIDE = """
-- Of a task: number of the last event that said something of it. Events that could not be folded, with the reason.
ALTER TABLE tasks ADD COLUMN event INTEGER NOT NULL DEFAULT 0;
CREATE TABLE events_set_aside (event INTEGER PRIMARY KEY, reason TEXT NOT NULL);
"""
_EXEMPLARS = """
-- What accepted objects teach of categories that no model knows (backend.learning.annotations.exemplars).
CREATE TABLE exemplar_tasks (
    project INTEGER NOT NULL,
    task INTEGER NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (project, task)
) WITHOUT ROWID;
CREATE TABLE exemplars (
    project INTEGER NOT NULL,
    task INTEGER NOT NULL,
    image TEXT NOT NULL,
    category TEXT NOT NULL,
    objects INTEGER NOT NULL,
    digest TEXT NOT NULL,
    lesson BLOB NOT NULL,
    PRIMARY KEY (project, task, image, category)
);
"""
MIGRATIONS: tuple[str, ...] = (_TABLES, _SET_ASIDE, _EXEMPLARS)
"""SQL scripts in their order; comments stand on lines of their own."""
