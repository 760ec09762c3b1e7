"""Annotators at work, all at once: ``python -m benchmarks.load --annotators 16 --think 5 --seconds 60``.

A ``pslg serve`` of its own with the compact config, drawn scenes behind a web server, and annotators who open a task
(the request for its pre-label), click on an object, click again, draw two boxes, and go on to the next task; each
waits for its answer and thinks. Beside them one project retrieves batches, and /health and /setup are asked as Label
Studio asks them. Bodies have the form of Label Studio's. Every answer is compared with the one that a server without
company gives to the same request: a function of the request, so one that differs is wrong.

``warm`` images were pre-labelled before the clock starts, ``cold`` ones nobody has seen. The table gives milliseconds
(p50/p95/p99), answers, refusals (503, or a note that the server is busy) and the server's memory. Memory is that of the
largest worker: ``anonymous`` is what no file stands behind, ``own`` the whole less the pages of the files of torch and
of NVIDIA's libraries (smaps), most of which the CPU build of torch does not have.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import requests

from benchmarks.image_server import served
from benchmarks.pslg_server import Server, free_port
from dataset_tools.synthetic import Scene, draw_scene

LABELS = ("airplane", "ship", "storage tank", "vehicle", "building", "baseball field", "tennis court", "harbor")
CONFIG = f"""<View><Header value="$expression"/><TextArea name="pslg_note" toName="image" editable="false"/>
<BrushLabels name="mask" toName="image" smart="false">
{"".join(f'<Label value="{name}"/>' for name in LABELS)}</BrushLabels>
<KeyPointLabels name="point" toName="image" smart="true" smartOnly="true"><Label value="airplane"/></KeyPointLabels>
<RectangleLabels name="box" toName="image" smart="true" smartOnly="true"><Label value="airplane"/></RectangleLabels>
<Image name="image" value="$image"/></View>"""
KINDS = ("open", "first click", "second click", "two boxes")


@dataclass
class Figures:
    """What was measured; thread-safe."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, seconds: float, body: dict[str, Any] | None, answer: requests.Response | None) -> None:
        """Count one request."""
        with self.lock:
            if answer is None:
                self.failed.append(f"{kind}: no answer after {seconds:.1f} s")
                return
            busy = answer.status_code == 503 or (body is not None and "(busy)" in answer.text)
            if busy:
                self.refused[kind] += 1
                return
            if answer.status_code != 200:
                self.failed.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
                return
            self.seconds[kind].append(seconds)
            if body is not None:
                key = json.dumps(body["tasks"]) + json.dumps(body["params"])
                said = json.dumps([_essence(slot) for slot in answer.json()["results"]])
                if self.answers.setdefault(key, said) != said:
                    self.failed.append(f"{kind}: two answers to one request")
                self.bodies[key] = body


def _essence(slot: Any) -> Any:
    """An answer without the ids that are fresh in each, and without scores' last digits."""
    if isinstance(slot, list):
        return slot
    regions = [[region["from_name"], region["type"], region["value"]] for region in slot["result"]]
    return [regions, round(slot["score"], 6), slot["model_version"]]


@contextmanager
def scenes_served(count: int, side: int, seed: int) -> Iterator[tuple[str, list[Scene]]]:
    """Address of a web server with ``count`` drawn scenes as /<number>.jpg, and the scenes."""
    scenes = [draw_scene(seed + number, side, side) for number in range(count)]
    files = [cv2.imencode(".jpg", scene.image[:, :, ::-1])[1].tobytes() for scene in scenes]

    with served(lambda path: files[int(path[1:].partition(".")[0])]) as url:
        yield url, scenes


def opened(base: str, number: int, scene: Scene) -> dict[str, Any]:
    """The request that Label Studio sends when a task is opened."""
    name = scene.objects[0].category if scene.objects else "airplane"
    data = {"image": f"{base}/{number}.jpg", "expression": f"all the {name}s"}
    return {
        "tasks": [{"id": number, "data": data, "annotations": [], "drafts": [], "predictions": []}],
        "project": f"{1 + number % 4}.1795426155", "label_config": CONFIG, "params": {"context": None},
    }  # fmt: skip


def asked(base: str, number: int, scene: Scene, kind: str) -> dict[str, Any]:
    """An annotator's request of a ``kind`` of ``KINDS``; the same one each time."""
    body = opened(base, number, scene)
    if kind == "open":
        return body
    height, width = scene.image.shape[:2]
    shapes = scene.objects[:2] or [None]

    def item(name: str, kind: str, value: dict[str, Any], index: int) -> dict[str, Any]:
        return {
            "id": f"{name}{index}", "type": kind, "from_name": name, "to_name": "image", "is_positive": True,
            "original_width": width, "original_height": height, "image_rotation": 0,
            "value": {**value, kind: ["airplane"]},
        }  # fmt: skip

    def middle(index: int) -> tuple[float, float]:
        shape = shapes[index % len(shapes)]
        if shape is None:
            return 50.0, 50.0
        x0, y0, x1, y1 = shape.box
        return 50 * (x0 + x1) / width, 50 * (y0 + y1) / height

    if kind == "two boxes":
        result = []
        for index in range(2):
            x, y = middle(index)
            result.append(item("box", "rectanglelabels", {"x": x - 4, "y": y - 4, "width": 8, "height": 8}, index))
    else:
        x, y = middle(0)
        result = [item("point", "keypointlabels", {"x": x, "y": y, "width": 0.4}, 0)]
        if kind == "second click":
            result.append(item("point", "keypointlabels", {"x": x + 1, "y": y + 1, "width": 0.4}, 1))
    body["params"] = {"context": {"result": result}}
    return body


def send(
    figures: Figures, kind: str, url: str, body: dict[str, Any] | None, session: requests.Session, compare: bool = True
) -> requests.Response | None:
    """One request, measured."""
    begin = time.monotonic()
    answer: requests.Response | None = None
    with suppress(requests.RequestException):
        answer = session.post(url, json=body, timeout=100) if body is not None else session.get(url, timeout=100)
    figures.add(kind, time.monotonic() - begin, body if compare else None, answer)
    return answer


@dataclass(frozen=True)
class Load:
    """Who does what for how long.

    Attributes:
        annotators: how many at the same time.
        think: seconds between an answer and the next request, on average.
        seconds: length of the measurement.
        warm: images were pre-labelled before.
        batch: tasks of a batch that is retrieved over and over beside the annotators, with the same pauses; 0 for none.
    """

    annotators: int
    think: float
    seconds: float
    warm: bool
    batch: int


def run(server: Server, base: str, scenes: list[Scene], load: Load, first: int) -> tuple[Figures, list[Any]]:
    """The load on images from number ``first`` on; the figures, and (second, memory) as it went."""
    figures, until = Figures(), time.monotonic() + load.seconds
    begun = time.monotonic()
    numbers = list(range(first, len(scenes)))

    def annotator(index: int) -> None:
        rng = random.Random(index)
        session = requests.Session()
        position = index * max(1, len(numbers) // load.annotators)
        time.sleep(rng.uniform(0, min(load.think, load.seconds / 4)))
        while time.monotonic() < until:
            number = numbers[position % len(numbers)]
            position += 1
            for kind in KINDS:
                send(figures, kind, f"{server.url}/predict", asked(base, number, scenes[number], kind), session)
                time.sleep(rng.expovariate(1 / load.think) if load.think else 0)
                if time.monotonic() > until:
                    return

    def batches() -> None:
        session = requests.Session()
        position = 0
        while time.monotonic() < until:
            chosen = [numbers[(position + index) % len(numbers)] for index in range(load.batch)]
            position += load.batch
            body = opened(base, chosen[0], scenes[chosen[0]])
            body["tasks"] = [opened(base, number, scenes[number])["tasks"][0] for number in chosen]
            body["project"] = "99.1"
            send(figures, f"batch of {load.batch}", f"{server.url}/predict", body, session)
            time.sleep(min(load.think, max(0.0, until - time.monotonic())))

    def looks() -> None:
        session = requests.Session()
        while time.monotonic() < until:
            send(figures, "/health", f"{server.url}/health", None, session)
            send(figures, "/setup", f"{server.url}/setup", {"project": "1.1", "schema": CONFIG}, session, compare=False)
            time.sleep(0.5)

    threads = [threading.Thread(target=annotator, args=(index,)) for index in range(load.annotators)]
    threads += [threading.Thread(target=looks)]
    threads += [threading.Thread(target=batches)] if load.batch else []
    memory = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append((round(time.monotonic() - begun), server.memory()))
        time.sleep(min(5.0, load.seconds / 6))
    return figures, memory


def compared(figures: Figures, alone: str, limit: int, seed: int = 0) -> dict[str, Any]:
    """Up to ``limit`` of the answers against those of a server without company, at the address ``alone``."""
    keys = sorted(figures.bodies)
    random.Random(seed).shuffle(keys)
    wrong = []
    session = requests.Session()
    for key in keys[:limit]:
        answer = session.post(f"{alone}/predict", json=figures.bodies[key], timeout=300)
        mine = json.loads(figures.answers[key])
        true = [json.loads(json.dumps(_essence(slot))) for slot in answer.json()["results"]]
        # What a deadline cut off, or an empty slot, is no answer: only answers can be wrong.
        if any(one != other for one, other in zip(mine, true, strict=True) if one != [] and other != []):
            wrong.append(key[:300])
    return {"compared": min(limit, len(keys)), "wrong": len(wrong), "first_wrong": wrong[:3]}


def table(figures: Figures) -> dict[str, Any]:
    """Milliseconds, answers and refusals by kind of request."""
    rows = {}
    for kind in [*KINDS, *sorted(set(figures.seconds) - set(KINDS))]:
        found = np.array(figures.seconds[kind]) * 1000
        row: dict[str, Any] = {"answers": len(found), "refused": figures.refused.get(kind, 0)}
        if len(found):
            row |= {f"p{q}": round(float(np.percentile(found, q))) for q in (50, 95, 99)}
        rows[kind] = row
    return rows


def measure(
    load: Load, *, images: int, side: int, workers: int, model_threads: int | None, check: int, seed: int = 0
) -> dict[str, Any]:
    """One row of the table, with a server of its own."""
    with scenes_served(images, side, seed) as (base, scenes), tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder, "state"), free_port(), workers=workers, model_threads=model_threads)
        try:
            server.wait(CONFIG)
            rest = server.memory()
            session = requests.Session()
            if load.warm:
                for number, scene in enumerate(scenes):
                    for kind in KINDS:
                        body = asked(base, number, scene, kind)
                        session.post(f"{server.url}/predict", json=body, timeout=300).raise_for_status()
            figures, memory = run(server, base, scenes, load, 0)
        finally:
            server.close()
        alone = Server(Path(folder, "alone"), free_port(), workers=1, model_threads=model_threads)
        try:
            alone.wait(CONFIG)
            checked = compared(figures, alone.url, check)
        finally:
            alone.close()
    return {
        "annotators": load.annotators, "think_s": load.think, "seconds": load.seconds, "images": images, "side": side,
        "warm": load.warm, "workers": workers, "loadavg": round(os.getloadavg()[0], 1), "rest": rest,
        "most": max((found for _, found in memory), key=lambda found: found["rss_gb"], default=rest),
        "memory": memory, "requests": table(figures), "failed": len(figures.failed),
        "first_failed": figures.failed[:5], **checked,
    }  # fmt: skip


def faults(row: dict[str, Any]) -> list[str]:
    """What must not happen, whatever the load; a run that compared nothing shows nothing."""
    found = [f"{row['wrong']} of {row['compared']} answers are wrong: {row['first_wrong']}"] if row["wrong"] else []
    if row["failed"]:
        found.append(f"{row['failed']} requests failed: {row['first_failed']}")
    if not row["compared"] or any(not row["requests"][kind]["answers"] for kind in KINDS):
        found.append("some kind of request was never answered, or no answer was compared: take more seconds")
    return found


def shown(row: dict[str, Any]) -> str:
    """A row as Markdown: a line on the load, a table of requests, memory as it went, and what went wrong."""
    images = f"{row['images']} {'warm' if row['warm'] else 'cold'} images of {row['side']} px"
    lines = [
        f"{row['annotators']} annotators who think {row['think_s']} s, {row['workers']} worker(s),"
        f" {row['seconds']:.0f} s, {images}, load average {row['loadavg']}",
        "| request | answers | refused | p50 ms | p95 | p99 |",
        "|---|---|---|---|---|---|",
    ]
    for kind, found in row["requests"].items():
        cells = [kind, found["answers"], found["refused"], *(found.get(f"p{q}", "-") for q in (50, 95, 99))]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    marks = [row["memory"][len(row["memory"]) * part // 10] for part in range(10)] if row["memory"] else []
    went = ", ".join(f"{second} s {found['own_gb']:.2f}" for second, found in dict(marks).items())
    lines.append(f"GB less torch's libraries: at rest {row['rest']['own_gb']:.2f}; {went}; most {row['most']}")
    lines.append(
        f"compared with answers computed alone: {row['compared']}, wrong {row['wrong']}, failed {row['failed']}"
    )
    return "\n".join([*lines, *(f"FAULT: {fault}" for fault in faults(row))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, nargs="+", default=[16])
    parser.add_argument("--think", type=float, default=5.0, help="seconds")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cold", action="store_true", help="images that nobody has seen")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--side", type=int, default=512, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=20, help="tasks of a batch beside the annotators; 0 for none")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--model-threads", type=int)
    parser.add_argument("--check", type=int, default=100, help="answers to compare with those computed alone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for workers in arguments.workers:
        for annotators in arguments.annotators:
            load = Load(annotators, arguments.think, arguments.seconds, not arguments.cold, arguments.batch)
            row = measure(
                load,
                images=arguments.images,
                side=arguments.side,
                workers=workers,
                model_threads=arguments.model_threads,
                check=arguments.check,
            )
            rows.append(row)
            if not arguments.json:
                print(shown(row), flush=True)
    if arguments.json:
        print(json.dumps(rows, indent=1))
    sys.exit(1 if any(faults(row) for row in rows) else 0)


if __name__ == "__main__":
    main()
