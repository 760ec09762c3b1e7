"""Servers and trainers as real processes on one state folder, for the tests that kill them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import requests

from backend.demo.backend_process import BackendProcess
from backend.learning.versions.jobs import MAX_ATTEMPTS, TrainingJobs
from dataset_tools import brush_rle, synthetic
from dataset_tools.synthetic import Scene
from tests.end_to_end.projects import png
from tests.server.conftest import Site

PROJECT: dict[str, Any] = {"id": 2, "created_at": "2026-11-23T09:29:15Z", "updated_at": "2026-11-23T09:29:15Z"}
SIZE = {"width": 320, "height": 240}
LABEL, EXPRESSION = "windmill", "all the windmills"


def scenes(count: int) -> list[Scene]:
    """Small airports with airplanes; annotations call them windmills, which the compact model does not know."""
    drawn = (synthetic.draw_scene(seed, theme="airport", scale=0.8, **SIZE) for seed in range(10 * count))
    return [scene for scene in drawn if outlines(scene)][:count]


def outlines(scene: Scene) -> list[dict[str, Any]]:
    return [
        {
            "id": f"object{number}",
            "type": "brushlabels",
            "from_name": "mask",
            "to_name": "image",
            "origin": "manual",
            "original_width": SIZE["width"],
            "original_height": SIZE["height"],
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle.encode(item.mask), "brushlabels": [LABEL]},
        }
        for number, item in enumerate(scene.objects)
        if item.category == "airplane"
    ]


def submission(identity: int, scene: Scene, site: Site, project: dict[str, Any] = PROJECT) -> dict[str, Any]:
    """The webhook of a submitted annotation."""
    url = site.put(f"/{scene.seed}.png", png(scene.image))
    times = {"created_at": "2026-11-23T10:00:00Z", "updated_at": "2026-11-23T10:00:00Z"}
    return {
        "action": "ANNOTATION_CREATED",
        "project": project,
        "task": {"id": identity, "data": {"image": url, "expression": EXPRESSION}, **times},
        "annotation": {"id": identity, "task": identity, "result": outlines(scene), "was_cancelled": False, **times},
    }


def replay(folder: Path) -> Path:
    """A few small scenes that a training replays, so that it is short."""
    if not (folder / "split.json").is_file():
        drawn = (synthetic.draw_scene(seed, SIZE["width"], SIZE["height"]) for seed in range(900, 904))
        synthetic.write(folder, drawn, split=(0.5, 0.5, 0.0))
    return folder


def server(state: Path, **settings: str) -> BackendProcess:
    """A server of the compact config on ``state``, not started."""
    chosen = {
        "PSLG_IMAGE_HOSTS": "127.0.0.1",
        "PSLG_TRAIN_STEPS": "8",
        "PSLG_TRAIN_NICE": "0",
        "PSLG_TRAIN_HELD_OUT": "0.35",
        "PSLG_GATE_OBJECTS": "1",
        "PSLG_GATE_IMAGES": "1",
        "PSLG_TRAIN_REPLAY": str(replay(state / "small")),
        **settings,
    }
    return BackendProcess(state, "http://127.0.0.1:9", "none", settings=chosen)


def post(backend: BackendProcess, path: str, body: dict[str, Any]) -> requests.Response | None:
    """The answer, None where the server is (being) killed."""
    with requests.Session() as session, contextlib.suppress(requests.RequestException):
        session.trust_env = False
        return session.post(f"{backend.url}{path}", json=body, timeout=30)
    return None


def kill_trainer(jobs: TrainingJobs) -> bool:
    """kill -9 the process that runs a job; whether there was one.

    A job that died again and again without getting any further would be given up: that one is left to get further.
    """
    for job in jobs.jobs():
        if job.state == "running" and job.pid is not None and job.attempts < MAX_ATTEMPTS // 2:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if b"--job" in Path(f"/proc/{job.pid}/cmdline").read_bytes():
                    os.kill(job.pid, signal.SIGKILL)
                    return True
    return False
