"""A server's webhooks, clicks and batches with a training beside them: ``python -m benchmarks.active_learning``.

A server process with the compact models answers over HTTP. Webhooks carry annotations of drawn scenes; clicks are warm
(the image is embedded); "with training" means that a training process of the same state folder is learning. Last come
/health and /setup while a batch of images is predicted.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import requests

from backend.database import Database
from backend.demo.backend_process import BackendProcess
from backend.labeling_configs import read_labeling_config
from backend.learning.versions.jobs import TrainingJobs
from benchmarks.image_server import served
from dataset_tools import brush_rle, synthetic
from dataset_tools.synthetic import Scene

PROJECT = {"id": 1, "created_at": "2026-11-23T09:29:15Z", "updated_at": "2026-11-23T09:29:15Z"}
CONFIG = read_labeling_config("rrsisd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24, help="annotated drawn scenes")
    parser.add_argument("--webhooks", type=int, default=200)
    parser.add_argument("--clicks", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), arguments.images, arguments.webhooks, arguments.clicks)


def measure(folder: Path, images: int, webhooks: int, clicks: int) -> None:
    scenes = [synthetic.draw_scene(seed, theme="airport") for seed in range(images)]
    unseen = [synthetic.draw_scene(seed) for seed in range(1000, 1000 + images)]
    files = [encoded(scene) for scene in (*scenes, *unseen)]
    settings = {"PSLG_IMAGE_HOSTS": "127.0.0.1", "PSLG_TRAIN_STEPS": "2000"}
    backend = BackendProcess(folder / "state", "http://127.0.0.1:1", "none", settings=settings)
    session = requests.Session()
    session.trust_env = False

    def post(path: str, body: dict[str, Any]) -> Any:
        response = session.post(f"{backend.url}{path}", json=body, timeout=120)
        response.raise_for_status()
        return response.json()

    with served(lambda path: files[int(path[1:].partition(".")[0])]) as url, backend:
        backend.start_and_wait()
        bodies = [submission(number, scene, f"{url}/{number}.png") for number, scene in enumerate(scenes)]
        size = sum(len(json.dumps(body)) for body in bodies) // len(bodies) // 1000
        show(f"webhook, {size} kB", timed(lambda k: post("/webhook", bodies[k % len(bodies)]), webhooks))
        click = functools.partial(clicked, post, f"{url}/0.png", scenes[0])
        batch = functools.partial(batched, post, url, images)
        timed(click, clicks)  # embeds the windows around all these places
        show("warm click", timed(click, clicks))
        show("cold expression", timed(batch, 10))
        post("/webhook", {"action": "START_TRAINING", "project": PROJECT})
        database = Database.of_state(folder / "state")
        jobs = TrainingJobs(database)
        while not (wanted := jobs.jobs()) or wanted[0].progress < 0.1:
            if wanted and wanted[0].finished:
                raise SystemExit(f"the training ended: {wanted[0].message}")
            time.sleep(0.5)
        show("warm click, with training", timed(click, clicks))
        show("cold expression, with training", timed(lambda k: batch(k + 10), 10))
        show("webhook, with training", timed(lambda k: post("/webhook", bodies[k % len(bodies)]), webhooks))
        state = jobs.jobs()[0]
        print(f"the training was at {state.progress:.0%} ({state.message}) in the end, state {state.state}")
        jobs.stop(1)
        while jobs.jobs()[0].pid and Path(f"/proc/{jobs.jobs()[0].pid}").exists():
            time.sleep(0.5)
        database.close()
        setup = {"project": "1.1", "schema": CONFIG, "hostname": url, "access_token": "", "extra_params": None}
        calls = (lambda: session.get(f"{backend.url}/health", timeout=120), lambda: post("/setup", setup))
        tasks = [asked(url, images + number, "all the vehicles") for number in range(len(unseen))]
        predicting = threading.Thread(target=predict, args=(backend.url, tasks))
        predicting.start()
        found = timed(lambda k: calls[k % 2](), 100_000, predicting.is_alive)
        show("/health, with a batch", found[::2])
        show("/setup, with a batch", found[1::2])


def encoded(scene: Scene) -> bytes:
    """A scene's PNG file."""
    return bytes(cv2.imencode(".png", scene.image[:, :, ::-1])[1])


def submission(number: int, scene: Scene, url: str) -> dict[str, Any]:
    """The webhook of a submitted annotation with every airplane of the scene, called windmills."""
    height, width = scene.image.shape[:2]
    result = [
        {
            "id": f"{number}-{index}",
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle.encode(item.mask), "brushlabels": ["windmill"]},
        }
        for index, item in enumerate(scene.objects)
        if item.category == "airplane"
    ]
    times = {"created_at": "2026-11-23T10:00:00Z", "updated_at": "2026-11-23T10:00:00Z"}
    task = {"id": number + 1, "data": {"image": url, "expression": "all the windmills"}, **times}
    annotation = {"id": number + 1, "task": number + 1, "result": result, "was_cancelled": False, **times}
    return {"action": "ANNOTATION_CREATED", "project": PROJECT, "task": task, "annotation": annotation}


def clicked(post: Callable[[str, dict[str, Any]], Any], url: str, scene: Scene, number: int) -> None:
    """One click, each at another place."""
    height, width = scene.image.shape[:2]
    point = {
        "type": "keypointlabels",
        "from_name": "point",
        "original_width": width,
        "original_height": height,
        "is_positive": True,
        "value": {"x": 40 + number % 20, "y": 40 + number // 20, "width": 0.3, "keypointlabels": ["airplane"]},
    }
    task = {"id": 1, "data": {"image": url, "expression": ""}}
    params = {"context": {"result": [point]}}
    post("/predict", {"tasks": [task], "label_config": CONFIG, "project": "1.1", "params": params})


def batched(post: Callable[[str, dict[str, Any]], Any], url: str, images: int, number: int) -> None:
    """One expression that was not asked about this image before."""
    post("/predict", predict_body([asked(url, (number + 1) % images, "all the airplanes")]))


def asked(url: str, number: int, expression: str) -> dict[str, Any]:
    """A task about the scene ``number``."""
    return {"id": number + 1, "data": {"image": f"{url}/{number}.png", "expression": expression}}


def predict_body(tasks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"tasks": tasks, "label_config": CONFIG, "project": "1.1", "params": {"context": None}}


def predict(server: str, tasks: Sequence[dict[str, Any]]) -> None:
    """One batch, over a connection of its own."""
    with requests.Session() as session:
        session.trust_env = False
        session.post(f"{server}/predict", json=predict_body(tasks), timeout=600).raise_for_status()


def timed(call: Callable[[int], object], times: int, go_on: Callable[[], bool] = lambda: True) -> list[float]:
    """Milliseconds of each call; fewer calls than ``times`` where ``go_on`` says no."""
    found = []
    for number in range(times):
        if not go_on():
            break
        began = time.perf_counter()
        call(number)
        found.append(1000 * (time.perf_counter() - began))
    return found


def show(what: str, milliseconds: Sequence[float]) -> None:
    ordered = sorted(milliseconds)
    p95, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.95, 0.99))
    median = statistics.median(ordered)
    print(
        f"{what:32} median {median:7.1f} ms  p95 {p95:7.1f}  p99 {p99:7.1f}  max {ordered[-1]:7.1f}  n {len(ordered)}"
    )


if __name__ == "__main__":
    main()
