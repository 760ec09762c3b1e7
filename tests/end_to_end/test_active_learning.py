"""The loop in the real Label Studio: annotate, start training, see the new version's predictions, go back."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from backend.database import Database
from backend.demo.backend_process import BackendProcess
from backend.demo.label_studio_client import LabelStudioClient, StoredPrediction
from backend.learning.annotations.store import AnnotationStore
from backend.learning.retraining.gate import is_held_out
from backend.learning.versions.jobs import Job, TrainingJobs
from backend.learning.versions.registry import ModelVersions
from dataset_tools import brush_rle, metrics, synthetic
from dataset_tools.categories import canonical
from dataset_tools.image_files import file_key
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.notes import answered
from dataset_tools.synthetic import Scene
from tests.end_to_end.conftest import StartBackend, Studio
from tests.end_to_end.editor import open_editor
from tests.end_to_end.projects import png
from tests.server.loop import SIZE, outlines, replay

pytestmark = pytest.mark.timeout(1800)

SETTINGS = {"PSLG_TRAIN_HELD_OUT": "0.3", "PSLG_TRAIN_STEPS": "30", "PSLG_TRAIN_NICE": "0"}
LABEL, EXPRESSION = "Solar_Panel", "all the solar panels"
"""No lexicon holds it."""
CONFIG = f"""<View><Image name="image" value="$image"/><Header value="$expression"/>
<BrushLabels name="mask" toName="image" smart="false"><Label value="{LABEL}"/><Label value="Ship"/></BrushLabels>
</View>"""
LABELLED = 15


def _outlined(scene: Scene) -> list[dict[str, Any]]:
    regions = outlines(scene)
    for region in regions:
        region["value"]["brushlabels"] = [LABEL]
    return regions


def _scenes(project: int, folder: Path) -> list[Scene]:
    """Small airports, some of them held out for the gate; then two that nobody labels."""
    chosen: list[Scene] = []
    held_out = 0
    for seed in range(1000):
        scene = synthetic.draw_scene(seed, theme="airport", scale=0.8, **SIZE)
        file = folder / "scene.png"
        file.write_bytes(png(scene.image))
        out = is_held_out(project, file_key(file), float(SETTINGS["PSLG_TRAIN_HELD_OUT"]))
        wanted = len(chosen) >= LABELLED or (held_out < 5 if out else len(chosen) - held_out < 10)
        if wanted and any(item.category == "airplane" for item in scene.objects):
            chosen.append(scene)
            held_out += out
        if len(chosen) == LABELLED + 2:
            return chosen
    raise AssertionError("no scenes")


def _finished(jobs: TrainingJobs, project: int, log: Path) -> Job:
    """The project's job, once it has ended; pytest's time limit ends the test otherwise."""
    while not (found := jobs.jobs(project)) or not found[0].finished:
        time.sleep(0.5)
    assert found[0].state == "done", found[0].message + log.read_text()
    return found[0]


def _pslg(backend: BackendProcess, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "backend", *arguments],
        env=backend.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _predicted(client: LabelStudioClient, project: int, count: int) -> list[StoredPrediction]:
    """The project's predictions, once there are ``count``; some come after a batch's deadline."""
    while len(found := client.predictions(project)) < count:
        time.sleep(0.5)
    return found


def _score_column(api: LabelStudio, project: int, backend: int, version: str) -> tuple[int, dict[int, float]]:
    """A tab of the Data Manager and its column "Prediction score", once connection and project name ``version``."""
    while [row["title"] for row in api.backends(project) if row["id"] == backend] != [version]:
        time.sleep(0.5)
    while api.project(project)["model_version"] != version:
        time.sleep(0.5)
    tab = api.put_tab(project, "By score", {"ordering": ["-tasks:predictions_score"]})
    rows = api.call("GET", f"/api/tasks?view={tab}&page=1&page_size=100")["tasks"]
    scores = [row["predictions_score"] or 0.0 for row in rows]
    assert scores == sorted(scores, reverse=True)
    return tab, {row["id"]: score for row, score in zip(rows, scores, strict=True)}


def test_submitted_masks_make_a_version_that_is_served_and_taken_back(
    studio: Studio,
    personal_access_token: str,
    start_backend: StartBackend,
    tmp_path: Path,
    chromium: Path,
    artifacts: Path,
) -> None:
    client = studio.client
    assert canonical(LABEL) is None, f"{LABEL} has become a canonical category: test with another new word"
    project = client.create_project("Active learning", CONFIG)
    scenes = _scenes(project, tmp_path)
    images = [client.upload_image(project, f"{scene.seed}.png", png(scene.image)) for scene in scenes]
    tasks = client.import_tasks(project, [{"image": image, "expression": EXPRESSION} for image in images])
    backend = start_backend(personal_access_token, **SETTINGS, PSLG_TRAIN_REPLAY=str(replay(tmp_path / "replay")))
    connected = client.connect_backend(project, backend.url)
    base = connected.model_version
    assert base is not None
    client.retrieve_predictions(project, tasks)
    assert [answered(item.result) for item in client.predictions(project)] == [[]] * len(tasks)

    for task, scene in zip(tasks[:LABELLED], scenes, strict=False):
        client.create_annotation(task, _outlined(scene))
    mistake = client.create_annotation(tasks[0], _outlined(scenes[1]))
    client.delete_annotation(mistake)
    client.start_training(connected.id)

    database = Database.of_state(tmp_path / "backend")
    jobs, versions = TrainingJobs(database), ModelVersions(database, tmp_path / "backend")
    job = _finished(jobs, project, tmp_path / "backend" / "training.log")
    assert job.cause == "button"
    assert {row.task for row in AnnotationStore(database).annotations(project)} == set(tasks[:LABELLED])
    (row,) = versions.rows(project)
    version = row.manifest.version
    assert row.status == "active", row.manifest
    assert row.manifest.parent == row.manifest.base == base
    assert version in _pslg(backend, "models", "list")
    assert f"pslg train project {project} --like {version}" in _pslg(backend, "models", "show", version)

    while client.backend(connected.id).model_version != version:
        time.sleep(0.2)
    client.retrieve_predictions(project, tasks)
    stored = _predicted(client, project, 2 * len(tasks))
    tab, shown = _score_column(LabelStudio(studio.url, personal_access_token), project, connected.id, version)
    assert shown == pytest.approx({item.task: item.score for item in stored if item.model_version == version})
    assert max(shown.values()) > 0, "the base version finds nothing: these are the promoted version's"
    with open_editor(studio, chromium, artifacts) as editor:
        editor.page.goto(f"{studio.url}/projects/{project}/data?tab={tab}", wait_until="domcontentloaded")
        editor.page.get_by_text(EXPRESSION).first.wait_for()
        editor.screenshot("score-column-promoted")
        assert editor.problems == []
    assert sorted((item.task, item.model_version) for item in stored) == sorted(
        (task, name) for task in tasks for name in (base, version)
    )
    overlaps = []
    for task, scene in zip(tasks, scenes, strict=True):
        (found,) = [item for item in stored if (item.task, item.model_version) == (task, version)]
        masks = [
            brush_rle.decode(item["value"]["rle"], SIZE["height"], SIZE["width"]) for item in answered(found.result)
        ]
        truth = np.logical_or.reduce([item.mask for item in scene.objects if item.category == "airplane"])
        overlaps.append(metrics.iou(np.logical_or.reduce(masks), truth) if masks else 0.0)
        assert len(masks) <= 10 + 3 * len(_outlined(scene)), "an answer is bounded"
    assert np.mean(overlaps) > 0.2, overlaps
    assert max(overlaps[LABELLED:]) > 0, "the base version found nothing in the images that nobody labelled"

    assert "serves project" in _pslg(backend, "models", "rollback", str(project))
    while (served := client.backend(connected.id).model_version or "") == version:
        time.sleep(0.2)
    # The base version, with what was accepted as examples of a category that it was not trained on.
    assert served.startswith(f"{base}.like-"), served
    client.retrieve_predictions(project, tasks)
    wanted = len(stored) + len(tasks)
    assert len(_predicted(client, project, wanted)) == wanted
    body = {
        "tasks": [{"id": tasks[0], "data": {"image": images[0], "expression": EXPRESSION}}],
        "label_config": CONFIG,
        "project": f"{project}.1",
        "params": {"context": None},
    }
    with requests.Session() as session:
        session.trust_env = False
        (slot,) = session.post(f"{backend.url}/predict", json=body, timeout=120).json()["results"]
    assert slot["model_version"] == served
    metrics_page = requests.get(f"{backend.url}/metrics", timeout=30).text
    assert 'pslg_training_jobs{state="done"} 1.0' in metrics_page
    database.close()
