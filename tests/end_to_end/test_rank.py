"""``pslg rank`` in the real Label Studio: places in the tasks' data, and a tab of the Data Manager sorted by them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backend.commands.rank import rank
from backend.labeling_configs import read_labeling_config
from dataset_tools import synthetic
from dataset_tools.label_studio.client import LabelStudio
from tests.end_to_end.conftest import StartBackend, Studio
from tests.end_to_end.projects import LABELING_CONFIG, png


def test_the_queue_is_written_and_predictions_stay(
    studio: Studio,
    personal_access_token: str,
    start_backend: StartBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A queue of three tasks, two of them on copies of one picture; beside them a labelled, a skipped, a broken one."""
    client = studio.client
    project = client.create_project("rank", read_labeling_config(LABELING_CONFIG))
    scenes = [synthetic.draw_scene(seed, 320, 240, theme) for seed, theme in ((1, "airport"), (2, "port"), (3, "park"))]
    scenes.insert(1, scenes[0])
    images = [client.upload_image(project, f"{n}.png", png(scene.image)) for n, scene in enumerate(scenes)]
    asked = [(images[0], "all the airplanes"), (images[1], "all the airplanes"), (images[2], "all the ships")]
    asked += [(images[3], "the tennis court"), (images[3], "a tree"), ("/data/upload/x.png", "the ship")]
    data = [{"image": image, "expression": text, "scene": "s"} for image, text in asked]
    tasks = client.import_tasks(project, data)
    backend = start_backend(personal_access_token)
    client.connect_backend(project, backend.url)
    client.retrieve_predictions(project, tasks[:3])
    before = client.predictions(project)
    client.create_annotation(tasks[3], [])
    studio_api = LabelStudio(studio.url, personal_access_token)
    studio_api.call("POST", f"/api/tasks/{tasks[4]}/annotations/", {"result": [], "was_cancelled": True})
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", personal_access_token)

    def run(*words: str) -> Result:
        options = ["--state-dir", str(tmp_path / "state"), "--label-studio-url", studio.url]
        return CliRunner().invoke(rank, [str(project), *options, *words])

    result = run("--strategy", "uncertainty", "--write", "--json")
    assert result.exit_code == 1, "the task without a picture failed"
    assert f"1 tasks could not be ranked:\ntask {tasks[5]}: " in str(result.exception)
    report = json.loads(result.stdout)
    order = [row["task"] for row in report["tasks"]]
    assert sorted(order) == sorted(tasks[:3])
    assert report["skipped"] == 1
    assert order[2] in tasks[:2], "the second of two tasks on one picture comes last"
    by_task = {row["task"]: row["score"] for row in report["tasks"]}
    assert by_task == pytest.approx({item.task: item.score for item in before})
    stored = {row["id"]: row["data"] for row in studio_api.tasks(project)}
    for place, task in enumerate(order, 1):
        assert stored[task] == {**data[tasks.index(task)], "pslg_rank": f"000{place}"}
    assert all("pslg_rank" not in stored[task] for task in tasks[3:])
    assert [(p.id, p.task, p.score) for p in client.predictions(project)] == [(p.id, p.task, p.score) for p in before]
    client.retrieve_predictions(project, tasks[:3])
    assert len(client.predictions(project)) == len(before), "a place in the queue is no reason to predict again"

    again = run("--strategy", "uncertainty", "--write", "--limit", "1")
    assert "1 tasks have their place in 'pslg_rank'; 2 tasks were changed" in again.output
    tabs = studio_api.call("GET", f"/api/dm/views/?project={project}")
    (tab,) = [row for row in tabs if row["data"]["title"] == "Next to label"]
    shown = studio_api.call("GET", f"/api/tasks?view={tab['id']}&page=1&page_size=10")
    assert [row["id"] for row in shown["tasks"]] == order[:1]

    by_score = studio_api.put_tab(project, "By score", {"ordering": ["-tasks:predictions_score"]})
    shown = studio_api.call("GET", f"/api/tasks?view={by_score}&page=1&page_size=3")
    scores = [by_task[row["id"]] for row in shown["tasks"]]
    assert scores == sorted(by_task.values(), reverse=True), "the Data Manager's own order by prediction score"
