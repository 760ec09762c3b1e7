"""Tasks a second of ``pslg prelabel --tasks``, in this process and on Ray actors: ``python -m benchmarks.many_tasks``.

Every engine answers the same tasks about drawn scenes, each about an image of its own that nobody has seen, with one
thread of the models a worker and an empty state folder. Time runs from the first task to the last answer; what an
engine needs to start is told beside it. All engines must give the same predictions, byte by byte.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from backend.batch.engines import local_engine, ray_engine
from backend.labeling_configs import read_config
from backend.settings import Settings
from benchmarks.image_server import served
from dataset_tools.synthetic import draw_scene


def measure(rows: dict[int, dict[str, Any]], workers: int, folder: Path) -> tuple[dict[str, float], dict[int, bytes]]:
    """Seconds to start and tasks a second, and each task's prediction; 0 ``workers``: this process, without Ray."""
    settings = Settings(state_dir=folder, image_hosts=("127.0.0.1",), model_threads=1)
    began = time.perf_counter()
    with (ray_engine if workers else local_engine)(settings, read_config("rrsisd"), workers or None) as engine:
        started = time.perf_counter()
        answers = list(engine.compute(rows))
        done = time.perf_counter()
    for answer in answers:
        if answer.failure is not None:
            raise SystemExit(f"task {answer.number} failed: {answer.failure}")
    said = {answer.number: json.dumps(answer.prediction, sort_keys=True).encode() for answer in answers}
    return {"start_s": started - began, "seconds": done - started, "tasks_per_s": len(rows) / (done - started)}, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--side", type=int, default=512, help="of the images, in pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="Ray actors; 0: this process, no Ray")
    arguments = parser.parse_args()
    scenes = [draw_scene(number, arguments.side, arguments.side) for number in range(arguments.tasks)]
    files = [cv2.imencode(".jpg", scene.image[:, :, ::-1])[1].tobytes() for scene in scenes]
    results: dict[str, dict[str, float]] = {}
    said: list[dict[int, bytes]] = []
    with served(lambda path: files[int(path[1:].partition(".")[0])]) as url:
        rows = {
            number: {"data": {"image": f"{url}/{number}.jpg", "expression": f"all the {scene.objects[0].category}s"}}
            for number, scene in enumerate(scenes)
        }
        for workers in arguments.workers:
            name = f"ray, {workers} workers" if workers else "local"
            with tempfile.TemporaryDirectory() as folder:
                results[name], answers = measure(rows, workers, Path(folder))
            said.append(answers)
    different = sum(any(one[number] != said[0][number] for one in said) for number in rows)
    if arguments.json:
        print(json.dumps(results))
    else:
        print(f"| engine ({arguments.tasks} tasks, {os.cpu_count()} cores) | start, s | seconds | tasks a second |")
        print("|---|---|---|---|")
        for name, row in results.items():
            print(f"| {name} | {row['start_s']:.1f} | {row['seconds']:.1f} | {row['tasks_per_s']:.2f} |")
        print(f"predictions that differ between engines: {different}")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
