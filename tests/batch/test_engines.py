"""``pslg prelabel --tasks --engine ray`` on a real Ray of this machine; skipped where the package is not installed."""

from __future__ import annotations

import builtins
import json
import os
import random
import re
import signal
import threading
import warnings
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two Ray nodes on this machine."""
    pytest.importorskip("ray", reason="needs the extra: pip install 'pslg-sam[ray]'")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
            cluster.add_node(**node)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            pytest.skip("this machine is too busy for Ray, which gives a node 30 s to start")
    yield cluster
    cluster.shutdown()


def workers(cluster: Any) -> list[int]:
    """Process ids of the actors of this cluster."""
    raylets = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]}
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = int(re.search(r"^PPid:\s+(\d+)", status.read_text(), re.M)[1])  # type: ignore[index]
            name = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if parent in raylets and b"_Actor" in name:
            found.append(int(status.parent.name))
    return sorted(found)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_workers_that_are_killed_lose_no_task_and_change_none(
    image: Path, site: Site, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes; one of their workers is killed at random after every third answer, three times in all."""
    url = site.put("/scene.png", image.read_bytes())
    nouns = ("vehicle", "building", "ship", "windmill")
    texts = [f"{how} {noun}" for noun in nouns for how in ("all the", "the largest", "the leftmost")]
    tasks = [{"id": 10 + number, "data": {"image": url, "expression": text}} for number, text in enumerate(texts)]
    missing = {"id": 99, "data": {"image": site.url + "/missing.png", "expression": "the ship"}}
    journal, done, rng = tmp_path / ".predictions.json.partial", threading.Event(), random.Random(3)
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 3 and not done.wait(0.1):
            lines = journal.read_text().count("\n") if journal.exists() else 0
            alive = workers(cluster)
            if lines >= 3 * (len(killed) + 1) and alive:
                victim = rng.choice(alive)
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        with pytest.raises(PslgError, match=r"1 of 13 tasks failed:\ntask 99: "):
            run([*tasks, missing], tmp_path, "--engine", "ray", "--workers", "2")
    finally:
        done.set()
        killer.join()
    assert len(killed) == 3
    out = tmp_path / "predictions.json"
    assert [row["id"] for row in json.loads(out.read_text())] == [task["id"] for task in tasks]
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == len(tasks)

    # Gone on with: what was computed is not asked for again, not even the image.
    asked = len(site.seen)
    site.put("/missing.png", image.read_bytes())
    assert run([*tasks, missing], tmp_path).exit_code == 0
    assert {path for _, path, _, _ in site.seen[asked:]} == {"/missing.png"}
    assert not journal.exists()

    # The same tasks computed by this process, with nothing kept, give the same bytes.
    monkeypatch.setenv("PSLG_STATE_DIR", str(tmp_path / "another"))
    monkeypatch.setenv("PSLG_MODEL_THREADS", "1")
    again = tmp_path / "again"
    again.mkdir()
    assert run([*tasks, missing], again).exit_code == 0
    assert (again / "predictions.json").read_bytes() == out.read_bytes()


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
