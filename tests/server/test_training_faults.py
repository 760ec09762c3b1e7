"""What kills, a full disk, damaged files and clocks must not do: lose an acknowledged event, half-promote a version."""

from __future__ import annotations

import itertools
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.database import Database
from backend.learning.annotations.store import AnnotationStore
from backend.learning.versions.jobs import TrainingJobs
from backend.learning.versions.manifest import MANIFEST
from backend.learning.versions.registry import ModelVersions
from backend.state import StateFolder
from tests.server import loop
from tests.server.conftest import Site

KILLS = 20
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.of_state(tmp_path)
    yield database
    database.close()


def whole(database: Database, state: Path) -> str | None:
    """Check what must hold at any moment; a version that was made, whether the gate lets it serve or not."""
    versions = ModelVersions(database, state)
    known = [row.manifest.version for row in versions.rows()]
    active = versions.active(2, "compact")
    if active is not None:
        assert active in known
        versions.verify(active)
    for folder in (state / "models").glob("[!.]*"):
        assert (folder / MANIFEST).is_file(), folder
    return known[0] if known else None


def fill(database: Database, site: Site, count: int = 8) -> None:
    store = AnnotationStore(database)
    for number, scene in enumerate(loop.scenes(count), 1):
        store.events.append(loop.submission(number, scene, site))
    store.refresh()


def train(state: Path, *arguments: str, limit: int | None = None, steps: int = 8) -> subprocess.CompletedProcess[str]:
    """``pslg train project 2`` in a process; ``limit``: bytes that a file may have."""
    settings = {"OMP_NUM_THREADS": "1", "PSLG_TRAIN_STEPS": str(steps), "PSLG_TRAIN_DISK": "20000000"}
    environment = {**loop.server(state).environment, **settings}
    return subprocess.run(
        [sys.executable, "-m", "backend", "train", "project", "2", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def test_nothing_is_lost_or_half_done_when_servers_and_trainer_are_killed(
    database: Database, site: Site, tmp_path: Path
) -> None:
    rng = random.Random(7)
    fill(database, site)
    jobs = TrainingJobs(database)
    servers = [loop.server(tmp_path), loop.server(tmp_path)]
    for backend in servers:
        backend.start()
    acknowledged: set[int] = set()
    numbers = itertools.count(1000)
    stop = threading.Event()

    def send() -> None:
        """Webhooks to both servers, all the time."""
        for number, backend in zip(numbers, itertools.cycle(servers)):
            if stop.is_set():
                return
            body: dict[str, Any] = {"action": "PROJECT_UPDATED", "project": loop.PROJECT, "number": number}
            answer = loop.post(backend, "/webhook", body)
            if answer is not None and answer.status_code == 201:
                acknowledged.add(number)
            time.sleep(0.02)

    sender = threading.Thread(target=send)
    sender.start()
    AnnotationStore(database).events.append({"action": "START_TRAINING", "project": loop.PROJECT})
    killed = {"trainer": 0, "server": 0}
    try:
        while sum(killed.values()) < KILLS:
            time.sleep(rng.uniform(0.2, 3.0))
            if killed["trainer"] <= killed["server"] or rng.random() < 0.3:
                killed["trainer"] += loop.kill_trainer(jobs)
            else:
                victim = rng.choice(servers)
                victim.kill()
                victim.start()
                killed["server"] += 1
            whole(database, tmp_path)
            assert len([job for job in jobs.jobs() if job.state == "running"]) <= 1
            if jobs.next() is None:  # it was done in spite of everything: once more
                AnnotationStore(database).events.append({"action": "START_TRAINING", "project": loop.PROJECT})
        while jobs.next() is not None:
            time.sleep(0.5)
    finally:
        stop.set()
        sender.join()
        for backend in servers:
            backend.stop()
    log = (tmp_path / "training.log").read_text()
    assert {job.state for job in jobs.jobs()} == {"done"}, log
    assert len(acknowledged) > 20
    stored = [event.body["number"] for event in AnnotationStore(database).events.since() if "number" in event.body]
    assert acknowledged <= set(stored)
    assert len(stored) == len(set(stored))
    assert whole(database, tmp_path) is not None, log
    assert not list((tmp_path / "models").glob(".*"))
    assert "goes on" in (tmp_path / "backend.log").read_text()


def test_a_full_disk_ends_the_job_with_its_reason_and_no_version(
    database: Database, site: Site, tmp_path: Path
) -> None:
    fill(database, site)
    done = train(tmp_path, limit=6_000_000)
    assert done.returncode == 1
    (job,) = TrainingJobs(database).jobs()
    assert job.state == "failed"
    assert "MB free" in job.message
    assert job.message in done.stderr
    assert whole(database, tmp_path) is None
    assert not list((tmp_path / "models").iterdir())
    shutil.rmtree(tmp_path / "features", ignore_errors=True)
    assert train(tmp_path).returncode == 0
    assert whole(database, tmp_path) is not None
    kept = sum(path.stat().st_size for path in (tmp_path / "features").rglob("*") if path.is_file())
    assert 0 < kept <= 20_000_000


def test_a_damaged_checkpoint_begins_anew_and_a_repeated_training_gives_the_same_version(
    database: Database, site: Site, tmp_path: Path
) -> None:
    fill(database, site)
    jobs = TrainingJobs(database)
    environment = {**loop.server(tmp_path).environment, "OMP_NUM_THREADS": "1", "PSLG_TRAIN_STEPS": "6"}
    command = [sys.executable, "-m", "backend", "train", "project"]
    process = subprocess.Popen([*command, "2"], env=environment, stderr=subprocess.DEVNULL)
    while not (found := jobs.jobs()) or found[0].progress < 0.3:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    model = StateFolder(tmp_path).staging(found[0].id) / "model"
    damaged = [file for file in model.rglob("*") if file.is_file()]
    assert damaged
    for file in damaged:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = [*command, "--job", str(found[0].id)]
    done = subprocess.run(again, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "begins anew" in done.stderr
    whole(database, tmp_path)
    (row,) = ModelVersions(database, tmp_path).rows()
    version = row.manifest.version
    assert train(tmp_path, "--like", version, steps=99).returncode == 0
    assert {job.version for job in jobs.jobs()} == {version}


def test_a_clock_that_jumps_changes_no_order(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = TrainingJobs(database)
    clock = iter([2e9, 1e9, 3e9, 0.0, 5e9, 1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(time, "time", lambda: next(clock))
    first, second = jobs.want(2, "button"), jobs.want(3, "button")
    found = jobs.next()
    assert found is not None
    assert found.id == first.id
    jobs.begin(second.id, 1, 0)
    found = jobs.next()
    assert found is not None
    assert found.id == second.id
    jobs.fail(second.id, "no")
    assert [job.id for job in jobs.jobs()] == [second.id, first.id]


def test_an_event_that_cannot_be_stored_is_not_acknowledged(site: Site, tmp_path: Path) -> None:
    backend = loop.server(tmp_path)
    backend.command = ["bash", "-c", 'ulimit -f 1000; exec "$@"', "bash", *backend.command]  # KiB
    with backend:
        backend.start_and_wait()
        statuses = []
        for number in range(40):
            body = {"action": "PROJECT_UPDATED", "project": loop.PROJECT, "number": number, "padding": "x" * 100_000}
            answer = loop.post(backend, "/webhook", body)
            statuses.append(None if answer is None else answer.status_code)
        assert 201 in statuses
        assert 503 in statuses
    database = Database.of_state(tmp_path)
    stored = {event.body["number"] for event in AnnotationStore(database).events.since()}
    assert stored >= {number for number, status in enumerate(statuses) if status == 201}
    database.close()
    assert "pslg sync" in (tmp_path / "backend.log").read_text()
