"""``pslg prelabel --tasks --engine ray`` on a real Ray of this machine; skipped where the package is not installed."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image as PillowImage

from backend.commands.prelabel import prelabel
from dataset_tools.errors import ConfigError, PslgError
from dataset_tools.synthetic import draw_scene
from tests.server.conftest import Site, make_site


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "scene.png"
    PillowImage.fromarray(draw_scene(5, width=400, height=320).image).save(path)
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PSLG_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PSLG_IMAGE_HOSTS", "127.0.0.1")
    yield from make_site()


def run(tasks: list[dict[str, Any]], folder: Path, *more: str) -> Result:
    (folder / "tasks.json").write_text(json.dumps(tasks))
    arguments = ["--tasks", str(folder / "tasks.json"), "--out", str(folder / "predictions.json"), *more]
    return CliRunner().invoke(prelabel, arguments, catch_exceptions=False)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_actors_answer_like_this_process(image: Path, site: Site, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'pslg-sam[ray]'")
    url = site.put("/scene.png", image.read_bytes())
    texts = ["all the vehicles", "the windmill", "the largest ship", "all the buildings"]
    tasks: list[dict[str, Any]] = [
        {"id": 10 + n, "data": {"image": url, "expression": text}} for n, text in enumerate(texts)
    ]
    tasks.insert(2, {"id": 99, "data": {"image": site.url + "/missing.png", "expression": "the ship"}})
    with pytest.raises(PslgError, match=r"1 of 5 tasks failed:\ntask 99: "):
        run(tasks, tmp_path, "--engine", "ray", "--workers", "2")
    out = tmp_path / "predictions.json"
    found = json.loads(out.read_text())
    assert [row["id"] for row in found] == [10, 11, 12, 13]
    assert (tmp_path / ".predictions.json.partial").exists()

    # Gone on with: what was computed is not asked for again, not even the image.
    asked = len(site.seen)
    site.put("/missing.png", image.read_bytes())
    assert run(tasks, tmp_path).exit_code == 0
    assert {path for _, path, _, _ in site.seen[asked:]} == {"/missing.png"}
    assert [row["id"] for row in json.loads(out.read_text())] == [10, 11, 99, 12, 13]
    assert not (tmp_path / ".predictions.json.partial").exists()

    # The same tasks computed here give the same masks.
    again = tmp_path / "again"
    again.mkdir()
    assert run([task for task in tasks if task["id"] != 99], again).exit_code == 0
    here = json.loads((again / "predictions.json").read_text())
    for one, other in zip(found, here, strict=True):
        first, second = one["predictions"][0], other["predictions"][0]
        assert first["model_version"] == second["model_version"]
        assert [region["value"] for region in first["result"]] == [region["value"] for region in second["result"]]


def test_without_ray_the_package_is_named(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_ray(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "ray":
            raise ImportError("No module named 'ray'")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(ConfigError, match=r"pslg-sam\[ray\]"):
        run([{"data": {"image": str(image), "expression": "the ship"}}], tmp_path, "--engine", "ray")


def test_workers_are_for_ray_and_engines_for_tasks(image: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--engine ray"):
        run([], tmp_path, "--workers", "2")
    result = CliRunner().invoke(prelabel, [str(image), "the ship", "--engine", "ray"])
    assert result.exit_code == 2
    assert "--tasks" in result.output


def test_a_line_cut_short_is_computed_again(image: Path, site: Site, tmp_path: Path) -> None:
    tasks = [{"id": 1, "data": {"image": site.put("/a.png", image.read_bytes()), "expression": "all the vehicles"}}]
    broken = {"id": 2, "data": {"image": site.url + "/missing.png", "expression": "the ship"}}
    with pytest.raises(PslgError, match="task 2"):
        run([*tasks, broken], tmp_path)
    partial = tmp_path / ".predictions.json.partial"
    whole = partial.read_text()
    first = (tmp_path / "predictions.json").read_text()
    partial.write_text(whole + whole[: len(whole) // 2])
    assert run(tasks, tmp_path).exit_code == 0
    assert (tmp_path / "predictions.json").read_text() == first
