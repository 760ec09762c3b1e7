"""A disk that is full or read-only, a file that is damaged: clicks and pre-labels go on, and somebody hears of it."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from backend import database
from backend.database import Database
from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.server.conftest import Site, batch, png, task
from tests.server.tiny import tiny_pipeline
from tests.test_memory import click

Trouble = Callable[[sqlite3.Connection], object]
TROUBLES: dict[str, tuple[Trouble, str]] = {
    # What SQLite itself says when the disk is full, or the folder is mounted read-only.
    "full": (lambda c: c.execute("PRAGMA max_page_count = 1"), "full"),
    "read-only": (lambda c: c.execute("PRAGMA query_only = 1"), "readonly"),
}


@pytest.fixture
def troubled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Trouble | None], None]:
    """Gives what makes every connection fail from now on; None mends them."""
    connect = Database._connection
    now: list[Trouble | None] = [None]

    def connection(self: Database) -> sqlite3.Connection:
        found = connect(self)
        found.execute("PRAGMA query_only = 0")
        found.execute("PRAGMA max_page_count = 1000000")
        if now[0] is not None:
            now[0](found)
        return found

    monkeypatch.setattr(Database, "_connection", connection)

    def set_trouble(trouble: Trouble | None) -> None:
        now[0] = trouble

    return set_trouble


@pytest.mark.parametrize("kind", TROUBLES)
def test_answers_come_from_memory_while_nothing_can_be_written(
    client: FlaskClient,
    service: LabelingService,
    site: Site,
    troubled: Callable[[Trouble | None], None],
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    trouble, words = TROUBLES[kind]
    url = site.put("/new.png", png(600, 500, seed=3))
    for number in range(30):  # so that what is stored fills pages
        client.post("/webhook", json={"action": "TASKS_CREATED", "padding": "x" * 1000, "number": number})
    troubled(trouble)
    many = [task(number, site.put(f"/{number}.png", png(200, 150, seed=number))) for number in range(60)]
    assert all(client.post("/predict", json=batch(*many)).get_json()["results"])
    first = client.post("/predict", json=batch(task(1, url))).get_json()["results"]
    assert first[0]["result"]
    assert client.post("/predict", json=click(url)).get_json()["results"][0]["result"]
    assert site.paths().count("/new.png") == 1  # known from memory
    statuses = {
        client.post("/webhook", json={"action": "TASKS_CREATED", "padding": "x" * 50_000}).status_code for _ in range(3)
    }
    assert statuses == {503}
    health = client.get("/health").get_json()
    assert health["status"] == "UP"
    assert words in health["problem"]
    assert "server.sqlite3" in health["problem"]
    told = [r for r in caplog.records if r.levelno == logging.ERROR and "go on from memory" in r.getMessage()]
    assert 1 <= len(told) <= 3  # not one for each of 60 tasks
    assert client.get("/metrics").status_code == 200
    troubled(None)
    site.put("/later.png", png(seed=99))
    assert client.post("/predict", json=batch(task(1, site.url + "/later.png"))).get_json()["results"][0]["result"]
    assert "problem" not in client.get("/health").get_json()


def test_a_state_folder_that_nobody_can_write_from_the_start(
    settings: Settings, site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes on from memory, says so, refuses webhooks, and writes as soon as it can."""
    place = settings.state_dir
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"")  # nothing can be made in a file, not by root either
    monkeypatch.setattr(database, "_CANNOT_WRITE", (*database._CANNOT_WRITE, errno.ENOTDIR, errno.EEXIST))
    service = LabelingService(settings, tiny_pipeline)
    service.start()
    assert service.model.wait(60)
    client = create_app(settings, service).test_client()
    url = site.put("/a.png", png())
    assert client.post("/predict", json=batch(task(1, url))).get_json()["results"][0]["result"]
    assert client.post("/predict", json=click(url)).get_json()["results"][0]["result"]
    assert client.post("/webhook", json={"action": "TASKS_CREATED"}).status_code == 503
    health = client.get("/health").get_json()
    assert health["status"] == "UP"
    assert f"the state folder: {settings.state.database}" in health["problem"]
    assert "go on from memory" in health["problem"]
    assert any("go on from memory" in record.getMessage() for record in caplog.records)
    assert client.get("/metrics").status_code == 200
    place.unlink()
    assert client.post("/webhook", json={"action": "TASKS_CREATED"}).status_code == 503  # not looked at yet
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert client.post("/webhook", json={"action": "TASKS_CREATED"}).status_code == 201
    assert client.post("/predict", json=batch(task(1, url))).get_json()["results"][0]["result"]
    assert "problem" not in client.get("/health").get_json()
    assert settings.state.database.exists()
    service.close()


@pytest.mark.parametrize("there", [True, False])
def test_a_read_only_disk_is_read(tmp_path: Path, there: bool) -> None:
    """A file system of the test's own; what was kept before is there, and a command that must write ends."""
    program = shutil.which("unshare")
    if program is None or subprocess.run([program, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare, and user name spaces")
    folder = tmp_path / "state"
    folder.mkdir()
    if there:
        kept = Database.of_state(folder)
        with kept.transaction() as connection:
            connection.execute("INSERT INTO prelabels (key, model_version, computed_at, body) VALUES ('k', 'v', 0, '')")
        kept.close()
    code = """
import sqlite3, sys
from pathlib import Path
from backend.database import Database
folder = Path(sys.argv[1])
found = Database.of_state(folder, can_wait=True)
with found.transaction() as connection:
    print("rows", connection.execute("SELECT count(*) FROM prelabels").fetchone()[0])
try:
    with found.transaction() as connection:
        connection.execute("DELETE FROM prelabels")
except sqlite3.OperationalError as error:
    print("refused", error)
print("trouble", found.trouble)
Database.of_state(folder)
"""
    mounts = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    result = subprocess.run(
        [program, "-rm", "sh", "-c", f'{mounts} && exec "$0" -c "$1" "$2"', sys.executable, code, str(folder)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert f"rows {int(there)}" in result.stdout, result.stderr
    assert "refused attempt to write a readonly database" in result.stdout
    assert f"trouble the state folder: {folder}/server.sqlite3" in result.stdout
    assert f"ConfigError: {folder}/server.sqlite3 cannot be opened" in result.stderr.splitlines()[-1]


def test_a_folder_that_can_be_none_still_ends_the_server(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be opened: .*file"):
        Database.of_state(tmp_path / "file" / "state", can_wait=True)
    (tmp_path / "server.sqlite3").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ConfigError, match="bring the file back from a backup"):
        Database.of_state(tmp_path, can_wait=True)


def test_a_database_that_is_damaged_while_it_serves(settings: Settings, site: Site) -> None:
    service = LabelingService(settings, tiny_pipeline)
    service.start()
    assert service.model.wait(60)
    client = create_app(settings, service).test_client()
    url = site.put("/a.png", png())
    assert client.post("/predict", json=batch(task(1, url))).get_json()["results"][0]["result"]
    service._database.close()
    for path in settings.state_dir.glob("server.sqlite3-*"):
        path.unlink()
    whole = settings.state.database.read_bytes()
    settings.state.database.write_bytes(whole[:100] + b"\xa5" * (len(whole) - 100))
    assert client.post("/predict", json=batch(task(1, url))).get_json()["results"][0]["result"]
    assert client.post("/predict", json=click(url)).get_json()["results"][0]["result"]
    problem = client.get("/health").get_json()["problem"]
    assert str(settings.state.database) in problem
    assert "backup" in problem
    assert "pslg sync" in problem
    service.close()


def test_only_the_owner_reads_the_state(tmp_path: Path) -> None:
    database = Database.of_state(tmp_path / "state")
    with database.transaction() as connection:
        connection.execute("INSERT INTO folding (id, event) VALUES (1, 2) ON CONFLICT DO UPDATE SET event = 2")
    files = sorted((tmp_path / "state").iterdir())
    assert len(files) == 3  # the file, its log, its index
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    database.close()
    (tmp_path / "state" / "server.sqlite3").chmod(0o644)  # as an earlier release made it
    Database.of_state(tmp_path / "state").close()
    assert stat.S_IMODE((tmp_path / "state" / "server.sqlite3").stat().st_mode) == 0o600
