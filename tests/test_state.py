"""A state folder of an earlier release opens; one of a later release is refused in a line that says what to do.

``data/state_095f5ef`` was written by the code of that commit (its make.py): the server's own webhooks, pre-labels and
training, before files had a version.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from backend import __version__, cli
from backend.database import Database
from backend.learning.annotations.labelled import ImageFile, labelled_images
from backend.learning.annotations.store import AnnotationStore
from backend.learning.ranking.image_features import ImageFeatures
from backend.learning.retraining.labelled_files import read_labelled
from backend.learning.versions.jobs import TrainingJobs
from backend.learning.versions.registry import ModelVersions
from backend.pipeline import load_pipeline
from backend.server.answers.prelabel_cache import PrelabelCache, PrelabelQuestion
from backend.server.service import LabelingService
from backend.settings import Settings
from backend.state import StateFolder, image_file
from dataset_tools.errors import ConfigError
from dataset_tools.image_files import read
from dataset_tools.label_studio.import_rules import Problem

EARLIER = Path(__file__).parent / "data" / "state_095f5ef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of 095f5ef, where they may be written: a config ``tiny.yaml`` with its weights, and ``state``."""
    return shutil.copytree(EARLIER, tmp_path / "earlier")


@pytest.fixture
def state(folder: Path) -> StateFolder:
    return StateFolder(folder / "state")


@pytest.fixture
def database(state: StateFolder) -> Iterator[Database]:
    database = Database.of_state(state.root)
    yield database
    database.close()


def rows(state: StateFolder, query: str) -> list[Any]:
    with closing(sqlite3.connect(state.database)) as connection:
        return connection.execute(query).fetchall()


def version(state: StateFolder) -> int:
    return int(rows(state, "PRAGMA user_version")[0][0])


def content(state: StateFolder) -> dict[str, list[Any]]:
    """Rows by table."""
    tables = [name for (name,) in rows(state, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: rows(state, f"SELECT * FROM {name}") for name in tables}  # noqa: S608


def test_an_earlier_file_gets_its_version_and_keeps_its_rows(state: StateFolder) -> None:
    assert version(state) == 0
    Database.check(state.database)
    assert version(state) == 0
    before = content(state)
    for _ in range(2):
        Database.of_state(state.root).close()
        assert version(state) > 0
    after = content(state)
    assert after.keys() - before.keys() == {"events_set_aside", "exemplar_tasks", "exemplars"}
    assert before["annotations"]
    for name, known in before.items():
        added = (0,) if name == "tasks" else ()
        assert after[name] == [(*row, *added) for row in known]


def test_what_people_labelled_is_still_there(database: Database, state: StateFolder) -> None:
    store = AnnotationStore(database)
    assert len(store.events.since()) == 10
    store.refresh()
    assert store.accepted_masks(2) == 8
    project = store.project(2)
    assert project is not None
    assert project.title == "Roofs"
    kept = {row[0]: row[1:] for row in rows(state, "SELECT url, sha256 FROM images")}

    def fetch(url: str, _: int) -> ImageFile:
        return ImageFile(kept[url][0], image_file(state.images, kept[url][0]), 96, 128)

    problems: list[Problem] = []
    images = labelled_images(store, 2, fetch, problems)
    assert problems == []
    assert sorted(len(image.objects) for image in images) == [1, 1, 1, 1, 1, 1, 2]
    assert {item.category for image in images for item in image.objects} == {"solar panel"}
    assert {int(item.mask().sum()) for image in images for item in image.objects} == {900, 500}
    yellow = [read(image.path)[image.objects[0].mask()].mean(axis=0) for image in images]
    np.testing.assert_array_equal(yellow, [[230, 210, 30]] * 7)


def test_trained_versions_serve_and_jobs_wait(database: Database, state: StateFolder) -> None:
    done, waiting = sorted(TrainingJobs(database).jobs(2), key=lambda job: job.id)
    assert (done.state, waiting.state, waiting.cause) == ("done", "queued", "button")
    versions = ModelVersions(database, state.root)
    active = versions.active(2, "tiny")
    assert active is not None
    assert active == done.version
    versions.verify(active)
    assert versions.published(active).options["steps"] == 4
    assert load_pipeline(versions.config_path(active)).model_version == active
    assert [
        len(read_labelled(versions.path(active) / name, state.images)) for name in ("training.jsonl", "held_out.jsonl")
    ] == [3, 4]
    versions.rollback(2, "tiny")
    versions.promote(active, "again")


def test_computed_answers_and_features_are_found_again(database: Database, state: StateFolder, folder: Path) -> None:
    pipeline = load_pipeline(folder / "tiny.yaml")
    ((image, features),) = rows(state, "SELECT sha256, vector FROM image_features")
    cache = PrelabelCache(database, 100, 100)
    found = cache.get(image, PrelabelQuestion("the ship", None, cache.versions()[0]))
    assert found is not None
    (answer,) = found
    assert int(answer.mask.sum()) == 900
    assert (answer.category, answer.score, answer.point) == ("ship", 0.75, (40.0, 30.0))
    look = ImageFeatures(database, pipeline.segmenter).of(image, lambda: pytest.fail("computed again"))
    assert look.vector.tobytes() == features


def test_the_server_goes_on_with_an_earlier_state(folder: Path, state: StateFolder) -> None:
    service = LabelingService(Settings(state_dir=state.root, config=str(folder / "tiny.yaml")))
    try:
        assert service.versions()[0].startswith("tiny-")
        created = {"action": "PROJECT_UPDATED", "project": {"id": 2, "title": "Roofs"}}
        assert service.record_event(created) == 11
        service.store.refresh()
        assert service.store.accepted_masks(2) == 8
    finally:
        service.close()


@pytest.mark.parametrize("command", [["serve", "--port", "1"], ["models", "list"], ["train", "project", "2"]])
def test_a_later_state_is_refused_and_left_alone(
    command: list[str], state: StateFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(state, "PRAGMA user_version = 1000")
    before = state.database.read_bytes()
    monkeypatch.setattr(sys, "argv", ["pslg", *command, "--state-dir", str(state.root)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith(f"pslg: {state.database} has version 1000 and was written by a later release")
    for part in (f"({__version__}) knows versions up to ", "install the later release", "PSLG_STATE_DIR"):
        assert part in message
    doctor = CliRunner(env={"PSLG_STATE_DIR": str(state.root), "PSLG_CONFIG": "none.yaml"}).invoke(cli.pslg, ["doctor"])
    assert f"{state.database} has version 1000" in doctor.output
    assert state.database.read_bytes() == before


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "server.sqlite3").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ConfigError, match=r"server\.sqlite3 cannot be opened: file is not a database"):
        Database.of_state(tmp_path)
