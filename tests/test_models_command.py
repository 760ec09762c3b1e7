"""What ``pslg models`` and ``pslg train project`` say, and what they change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backend.cli import pslg
from backend.database import Database
from backend.learning.versions.jobs import TrainingJobs
from backend.learning.versions.registry import ModelVersions
from tests.dataset_tools.label_studio.test_client import LEGACY
from tests.learning.versions.test_registry import add
from tests.server.conftest import Reply, Site, make_site

FIRST, SECOND = "tiny-aaaaaaaa", "tiny-bbbbbbbb"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.of_state(tmp_path)
    registry = ModelVersions(database, tmp_path)
    for version in (FIRST, SECOND):
        add(registry, database, version, config="compact")
    yield database
    database.close()


@pytest.fixture
def site() -> Iterator[Site]:
    yield from make_site()


def run(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(pslg, [*arguments, "--state-dir", str(state)])


def test_versions_are_listed_shown_and_compared(database: Database, tmp_path: Path) -> None:
    jobs = TrainingJobs(database)
    job = jobs.want(2, "button")
    jobs.begin(job.id, 1, 0)
    jobs.report(job.id, 0.25, "the grounder learns")
    jobs.fail(jobs.add(3).id, "too few images")
    listed = run(tmp_path, "models", "list").output
    assert f"{SECOND:24}accepted" in listed
    assert "held-out 0.400 -> 0.500 (12 objects, 6 images)  replay 0.700 -> 0.700 (40 replay expressions)" in listed
    assert "    better\n" in listed
    assert f"job {job.id} of project 2: running, 25%, the grounder learns" in listed
    assert "failed: too few images" in listed
    shown = run(tmp_path, "models", "show", FIRST).output
    assert "seed=5" in shown
    assert "a" * 64 in shown
    assert f"pslg train project 2 --like {FIRST}" in shown
    assert "1 training images in common" in run(tmp_path, "models", "compare", FIRST, SECOND).output


def test_promotion_and_rollback_by_hand(database: Database, tmp_path: Path) -> None:
    assert run(tmp_path, "models", "promote", FIRST).exit_code == 0
    assert f"{SECOND} serves project 2" in run(tmp_path, "models", "promote", SECOND).output
    assert "active" in run(tmp_path, "models", "show", SECOND).output
    assert f"{FIRST} serves project 2" in run(tmp_path, "models", "rollback", "2").output
    assert "the base version of compact serves" in run(tmp_path, "models", "rollback", "2").output
    assert "nothing to roll back" in str(run(tmp_path, "models", "rollback", "2").exception)
    (ModelVersions(database, tmp_path).path(FIRST) / "weights.bin").unlink()
    assert "missing" in str(run(tmp_path, "models", "show", FIRST).exception)


def test_a_project_without_annotations_waits_for_labels(database: Database, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        pslg, ["train", "project", "7", "--state-dir", str(tmp_path)], env={"PSLG_TRAIN_NICE": "0"}
    )
    assert result.exit_code == 0
    (job,) = TrainingJobs(database).jobs(7)
    assert job.state == "waits"
    assert "0 labelled images" in job.message
    assert "label about 25 more" in job.message
    assert not list((tmp_path / "models").glob(".*"))


def test_waiting_jobs_are_taken_back(database: Database, tmp_path: Path) -> None:
    TrainingJobs(database).want(2, "button")
    assert "job 1 stopped" in run(tmp_path, "train", "project", "2", "--stop").output
    assert "no job to stop" in run(tmp_path, "train", "project", "2", "--stop").output
    assert run(tmp_path, "train", "project").exit_code == 2
    assert "no training job 9" in str(run(tmp_path, "train", "project", "--job", "9").exception)


def test_a_rollback_says_what_stays_in_label_studio_and_removes_it_when_asked(
    database: Database, tmp_path: Path, site: Site
) -> None:
    tasks = [
        {"id": 1, "predictions": [{"id": 11, "model_version": SECOND}, {"id": 12, "model_version": FIRST}]},
        {"id": 2, "predictions": [{"id": 13, "model_version": SECOND}]},
    ]
    for version in (FIRST, SECOND):
        run(tmp_path, "models", "promote", version)
    without = run(tmp_path, "models", "rollback", "2", "--delete-predictions")
    assert "LABEL_STUDIO_API_KEY" in str(without.exception)
    assert ModelVersions(database, tmp_path).active(2, "compact") == SECOND
    path = "/api/tasks/?project=2&page=1&page_size=100&fields=all"
    site.put(path, json.dumps({"tasks": tasks, "total": 2}).encode())
    for number in (11, 12, 13):
        site.replies[f"/api/predictions/{number}/"] = Reply(b"", 204)
    environment = {"LABEL_STUDIO_URL": site.url, "LABEL_STUDIO_API_KEY": LEGACY}
    arguments = ["models", "rollback", "2", "--delete-predictions", "--state-dir", str(tmp_path)]
    result = CliRunner().invoke(pslg, arguments, env=environment)
    assert f"2 predictions of {SECOND} removed" in result.output, (result.output, result.exception, site.paths())
    deleted = [path for method, path, _, _ in site.seen if method == "DELETE"]
    assert deleted == ["/api/predictions/11/", "/api/predictions/13/"]
    said = run(tmp_path, "models", "rollback", "2").output
    assert f"predictions of {FIRST} stay in Label Studio; --delete-predictions removes them" in said
