"""The table of training jobs: what is queued when, what runs next, and the lock that lets one run at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backend.database import Database
from backend.learning.annotations.store import AnnotationStore
from backend.learning.versions.jobs import TrainingJobs, finish
from backend.state import process_lock
from tests.learning.annotations.test_store import annotation, event, region, submitted


@pytest.fixture
def jobs(database: Database) -> TrainingJobs:
    return TrainingJobs(database)


def test_the_button_queues_one_job_however_often_it_is_pressed_and_folded(
    jobs: TrainingJobs, database: Database
) -> None:
    store = AnnotationStore(database)
    store.events.append(submitted("ANNOTATION_CREATED", annotation(1, 1, region("ship"), region("ship"))))
    for _ in range(2):
        store.events.append(event("START_TRAINING"))
    for _ in range(2):
        store.refresh()
    (job,) = jobs.jobs(2)
    assert (job.cause, job.state, job.masks) == ("button", "queued", 2)
    jobs.begin(job.id, 1, 2)
    store.events.append(event("START_TRAINING"))
    store.refresh()
    assert [found.state for found in jobs.jobs(2)] == ["queued", "running"]


def test_every_so_many_accepted_masks_queue_a_job(jobs: TrainingJobs, database: Database) -> None:
    store = AnnotationStore(database)
    for identity in range(1, 4):
        store.events.append(submitted("ANNOTATION_CREATED", annotation(identity, 1, region("ship"))))
    store.refresh()
    assert jobs.want_after(4) == []
    assert jobs.want_after(3) == [2]
    assert jobs.want_after(3) == []
    for identity in range(4, 7):
        skipped = {"was_cancelled": identity == 4}
        store.events.append(submitted("ANNOTATION_CREATED", annotation(identity, 1, region("ship"), **skipped)))
    store.refresh()
    assert jobs.want_after(3) == []
    store.events.append(submitted("ANNOTATION_CREATED", annotation(7, 1, region("ship"))))
    store.refresh()
    assert jobs.want_after(3) == [2]


def test_a_killed_job_goes_before_waiting_ones(jobs: TrainingJobs, database: Database) -> None:
    first, second, third = (jobs.want(project, "command") for project in (2, 3, 4))
    jobs.begin(second.id, 1, 0)
    found = jobs.next()
    assert found is not None
    assert found.id == second.id
    with database.transaction() as connection:
        finish(connection, second.id, "tiny-aaaaaaaa", "promoted")
    found = jobs.next()
    assert found is not None
    assert found.id == first.id
    jobs.fail(first.id, "too few")
    jobs.stop(4)
    assert jobs.next() is None
    assert [job.state for job in jobs.jobs()] == ["stopped", "done", "failed"]
    assert jobs.job(third.id).message == "stopped by the user"


def test_attempts_count_from_the_last_progress(jobs: TrainingJobs) -> None:
    job = jobs.want(2, "command")
    for _ in range(3):
        jobs.begin(job.id, 1, 0)
    assert jobs.report(job.id, 0.0, "reading")
    assert jobs.job(job.id).attempts == 3
    assert jobs.report(job.id, 0.5, "training")
    assert jobs.report(job.id, 0.25, "training again")
    found = jobs.job(job.id)
    assert (found.attempts, found.progress, found.message) == (1, 0.5, "training again")
    jobs.stop(2)
    assert not jobs.report(job.id, 0.6, "training")
    assert jobs.job(job.id).state == "stopped"


def test_the_lock_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "training.lock"
    code = (
        "import sys, pathlib, time\n"
        "from backend.state import process_lock\n"
        "with process_lock(pathlib.Path(sys.argv[1])) as mine:\n"
        "    print(mine, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with process_lock(path) as mine:
            assert not mine
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with process_lock(path) as mine:
        assert mine
