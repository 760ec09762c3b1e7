"""The README's first two minutes: a folder of photos, pre-labels, accepted in the editor, a dataset."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from backend.cli import pslg
from dataset_tools import metrics, synthetic
from dataset_tools.label_studio.client import LabelStudio
from tests.dataset_tools.mini_refer import MiniRefer
from tests.end_to_end.conftest import StartBackend, Studio
from tests.end_to_end.editor import open_editor
from tests.end_to_end.projects import png
from tests.end_to_end.scenes import airplane_scene

pytestmark = pytest.mark.timeout(1800)

EXPRESSIONS = ("the airplane in the top of the image", "the airplane on the left", "all the airplanes")


def test_a_folder_of_photos_becomes_a_dataset(
    studio: Studio,
    personal_access_token: str,
    start_backend: StartBackend,
    chromium: Path,
    artifacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenes = {"apron.png": airplane_scene(), "field.png": synthetic.draw_scene(12, theme="town", scale=1.3)}
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, scene in scenes.items():
        (photos / name).write_bytes(png(scene.image))
    with (tmp_path / "expressions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "expression"))
        rows.writerows(("apron.png", text) for text in EXPRESSIONS)
        rows.writerow(("field.png", "the airplane"))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", personal_access_token)
    monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
    backend = start_backend(personal_access_token)

    # One command: project, labeling config, images, expressions, connected backend.
    words = ["import-images", str(photos), "--expressions", str(tmp_path / "expressions.csv"), "--new", "First"]
    made = CliRunner().invoke(pslg, [*words, "--backend", backend.url])
    assert made.exit_code == 0, made.output
    api = LabelStudio(studio.url, personal_access_token)
    (project,) = [found["id"] for found in api.projects() if found["title"] == "First"]
    tasks = {row["id"]: row["data"] for row in api.tasks(project)}
    assert len(tasks) == 2

    # Opened, looked at, submitted: what is open asks for its pre-label itself.
    truth = [item.mask for item in scenes["apron.png"].objects if item.category == "airplane"]
    with open_editor(studio, chromium, artifacts) as editor:
        for task, data in tasks.items():
            editor.open_task(project, task)
            if "apron" in data["image"]:
                editor.wait_for_regions(5)  # one, one and three
                editor.screenshot("first-dataset")
                editor.submit()
            else:
                assert "(absent): " in editor.wait_for_note()
        assert editor.problems == []

    out = tmp_path / "dataset"
    words = ["dataset", "export", studio.url, str(out), "--project", str(project), "--cache", str(tmp_path / "cache")]
    exported = CliRunner().invoke(pslg, [*words, "--api-key", personal_access_token])
    assert exported.exit_code == 0, exported.output
    found = {texts[0]: np.asarray(target, np.bool_) for _, target, texts in MiniRefer(out).items("train")}
    assert set(found) == set(EXPRESSIONS)
    assert metrics.iou(found["all the airplanes"], np.logical_or.reduce(truth)) > 0.6
    checked = CliRunner().invoke(pslg, ["dataset", "validate", str(out)])
    assert checked.exit_code == 0, checked.output
