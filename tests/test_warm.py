from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from backend.cli import pslg
from backend.labeling_configs import read_labeling_config
from dataset_tools import synthetic
from dataset_tools.categories import CATEGORIES
from tests.dataset_tools.label_studio.test_client import LEGACY
from tests.server.conftest import Reply, Site, encode, make_site


@pytest.fixture
def site() -> Iterator[Site]:
    yield from make_site()


@pytest.fixture
def tasks(site: Site) -> list[dict[str, Any]]:
    scene = synthetic.draw_scene(3)
    url = site.put("/scene.png", encode(Image.fromarray(scene.image)))
    names = [CATEGORIES[category].plural for category in sorted({item.category for item in scene.objects})]
    rows = [{"id": 10 + n, "data": {"image": url, "expression": f"all the {name}"}} for n, name in enumerate(names)]
    return [*rows, {"id": 99, "data": {"image": site.url + "/none.png", "expression": "the ship"}}]


def run(tmp_path: Path, *options: str, **environ: str) -> Result:
    env: dict[str, str | None] = {"PSLG_STATE_DIR": str(tmp_path / "state"), "PSLG_IMAGE_HOSTS": "127.0.0.1", **environ}
    return CliRunner(env=env).invoke(pslg, ["warm", *options])


def test_tasks_of_a_file_are_embedded_once_and_failures_are_listed(
    tmp_path: Path, site: Site, tasks: list[dict[str, Any]]
) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps(tasks))
    first = run(tmp_path, "--tasks", str(file))
    assert first.exit_code == 1
    assert "task 99:" in str(first.exception)
    assert "404" in str(first.exception)
    stored = {path.name: path.stat().st_ino for path in (tmp_path / "state").glob("embeddings/*/*.embedding")}
    assert stored
    run(tmp_path, "--tasks", str(file))
    again = {path.name: path.stat().st_ino for path in (tmp_path / "state").glob("embeddings/*/*.embedding")}
    assert again == stored
    assert site.paths().count("/scene.png") == 1


def test_predictions_of_a_project_are_pushed_once(tmp_path: Path, site: Site, tasks: list[dict[str, Any]]) -> None:
    pushed: list[dict[str, Any]] = []
    tasks = tasks[:2]

    def store(_: dict[str, str], body: bytes) -> Reply:
        pushed.append(json.loads(body))
        return Reply(b"{}", 201)

    site.put("/api/projects/5/", json.dumps({"label_config": read_labeling_config("rrsisd")}).encode())
    page = {"tasks": tasks, "total": len(tasks)}
    site.put("/api/tasks/?project=5&page=1&page_size=100", json.dumps(page).encode())
    site.replies["/api/predictions/"] = store
    for task in tasks:
        number = task["id"]
        site.replies[f"/api/predictions/?task={number}"] = lambda _, __, number=number: Reply(  # type: ignore[misc]
            json.dumps([item for item in pushed if item["task"] == number]).encode()
        )
    environ = {"LABEL_STUDIO_URL": site.url, "LABEL_STUDIO_API_KEY": LEGACY}
    for _ in range(2):
        result = run(tmp_path, "--project", "5", "--push", **environ)
        assert result.exit_code == 0, (result.output, result.exception)
    assert sorted(item["task"] for item in pushed) == sorted(task["id"] for task in tasks)
    assert all(item["model_version"].startswith("compact-") for item in pushed)


@pytest.mark.parametrize("options", [[], ["--project", "1", "--tasks", __file__]])
def test_exactly_one_source_is_wanted(tmp_path: Path, options: list[str]) -> None:
    result = run(tmp_path, *options)
    assert result.exit_code == 2
    assert "either --project or --tasks" in result.output


def test_pushing_needs_a_label_studio(tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    file.write_text("[]")
    result = run(tmp_path, "--tasks", str(file), "--push")
    assert "--push needs --project" in str(result.exception)


def test_a_file_that_holds_no_tasks_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    file.write_text("{}")
    assert "must hold a list of tasks" in str(run(tmp_path, "--tasks", str(file)).exception)
