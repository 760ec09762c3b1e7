"""How many rooms a trip through the code visits: ``python -m benchmarks.trips [--json]``.

Four trips, on drawn scenes and with the models of the repository, each after the same trip was made once (so that
nothing is imported or built on the way):

- ``warm click``: the second positive click on an object of an image that was pre-labelled before, request in to answer
  out. It is embedded already; the click before it has been answered.
- ``first pre-label``: ``all the airplanes`` (three of them) in an image that was never seen, request in to answer out.
- ``webhook``: an accepted mask, request in to acknowledgement out.
- ``export record to REFER``: a JSON export of Label Studio with one brush mask becomes a dataset.

What counts is seen by ``sys.setprofile`` in every thread: calls of Python code in ``backend`` and ``dataset_tools``,
comprehensions and lambdas included, whatever other packages are called in between.

- modules: different files among the calls.
- functions: different pairs of file and qualified name.
- changes of file: calls whose file is another one than that of the call before it in the same thread. Returns do not
  count.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage

from benchmarks.clicks import click, compact
from benchmarks.image_server import served
from dataset_tools import brush_rle
from dataset_tools.export import export
from dataset_tools.label_studio.import_rules import ImportRules
from dataset_tools.sources import open_source
from dataset_tools.synthetic import draw_scene

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = (REPOSITORY / "backend", REPOSITORY / "dataset_tools")
LABEL_CONFIG = """<View><Image name="image" value="$image"/><Header value="$expression"/>
<BrushLabels name="mask" toName="image" smart="false"><Label value="airplane"/></BrushLabels>
<KeyPointLabels name="point" toName="image" smart="true" smartOnly="true"><Label value="airplane"/></KeyPointLabels>
</View>"""
EXPRESSION = "all the airplanes"
_SETTLE = 1.5
"""Seconds without a call after which a trip has ended: work that an answer left to other threads belongs to it."""
_BY_THE_CLOCK = "memory"
"""Name of the thread that gives memory back every few seconds, whoever is on a trip then."""


@dataclass
class Trip:
    """The calls of a trip: file and qualified name by thread, in their order."""

    calls: dict[int, list[tuple[str, str]]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Modules, functions and changes of file."""
        seen = {call for calls in self.calls.values() for call in calls}
        changes = sum(a[0] != b[0] for calls in self.calls.values() for a, b in pairwise(calls))
        return {"modules": len({file for file, _ in seen}), "functions": len(seen), "changes": changes}

    def modules(self) -> list[str]:
        """The files of the trip, below the repository."""
        return sorted({file for calls in self.calls.values() for file, _ in calls})


class Recorder:
    """Sees the calls of all threads that start after it was made, and of the one that made it."""

    def __init__(self, folders: tuple[Path, ...] = FOLDERS) -> None:
        self._folders = tuple(f"{folder}/" for folder in folders)
        self._trip: Trip | None = None
        threading.setprofile(self._see)

    def _see(self, frame: FrameType, event: str, _argument: object) -> None:
        trip, code = self._trip, frame.f_code
        if threading.current_thread().name == _BY_THE_CLOCK:
            return
        if event == "call" and trip is not None and code.co_filename.startswith(self._folders):
            file = code.co_filename.removeprefix(f"{REPOSITORY}/")
            trip.calls.setdefault(threading.get_ident(), []).append((file, code.co_qualname))

    @contextmanager
    def record(self, settle: float = _SETTLE) -> Iterator[Trip]:
        """What is called in this block, and after it by the other threads until none calls for ``settle`` seconds."""
        trip = self._trip = Trip()
        sys.setprofile(self._see)
        try:
            yield trip
            sys.setprofile(None)
            before = -1
            while settle and before != (now := sum(map(len, list(trip.calls.values())))):
                before = now
                time.sleep(settle)
        finally:
            sys.setprofile(None)
            self._trip = None

    def close(self) -> None:
        """See no more threads."""
        threading.setprofile(None)


def airport(seed: int) -> tuple[bytes, tuple[int, int], list[tuple[float, float]]]:
    """A drawn airport: its file, (width, height), and the centres of its airplanes in percent."""
    scene = draw_scene(seed, theme="airport", scale=1.3)
    height, width = scene.image.shape[:2]
    buffer = io.BytesIO()
    PillowImage.fromarray(scene.image).save(buffer, "PNG", compress_level=1)
    planes = sorted((item for item in scene.objects if item.category == "airplane"), key=lambda item: -item.mask.sum())
    centers = [(100 * item.box.center.x / width, 100 * item.box.center.y / height) for item in planes]
    return buffer.getvalue(), (width, height), centers


def request(url: str, task: int, clicks: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A batch request of one task, or an interactive one with ``clicks``, as Label Studio sends it."""
    data = {"image": url, "expression": EXPRESSION}
    return {
        "tasks": [{"id": task, "data": data, "annotations": [], "drafts": [], "predictions": []}],
        "label_config": LABEL_CONFIG,
        "project": "1.1",
        "params": {"context": None if clicks is None else {"result": clicks}},
    }


def region(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """A brush region as Label Studio stores it."""
    return {
        "id": "a", "from_name": "mask", "to_name": "image", "type": "brushlabels", "origin": "prediction",
        "original_width": mask.shape[1], "original_height": mask.shape[0],
        "value": {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": ["airplane"]},
        "meta": {"text": ["pslg model=compact-00000000 clicks=1 score=0.9", "expression: the largest airplane"]},
    }  # fmt: skip


def stored_task(folder: Path) -> dict[str, Any]:
    """A labelled task as exports and webhooks hold it; its image is written to ``folder``."""
    scene = draw_scene(8001, theme="airport", scale=1.3)
    PillowImage.fromarray(scene.image).save(folder / "scene.png")
    mask = max((item.mask for item in scene.objects if item.category == "airplane"), key=lambda mask: int(mask.sum()))
    annotation = {
        "id": 1, "completed_by": 1, "was_cancelled": False, "lead_time": 3.2, "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z", "result": [region(mask)],
    }  # fmt: skip
    data = {"image": "/data/upload/1/0a1b2c3d-scene.png", "expression": "the largest airplane"}
    return {"id": 1, "data": data, "annotations": [annotation]}


def measure() -> dict[str, Trip]:
    """The four trips."""
    recorder = Recorder()
    trips: dict[str, Trip] = {}
    scenes = {seed: airport(seed) for seed in (8003, 8001)}
    with (
        served(lambda path: scenes[int(path[1:].partition(".")[0])][0]) as images,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
    ):
        folder = Path(name)
        client = compact(folder / "state", "torch")

        def ask(path: str, body: dict[str, Any]) -> Any:
            answer = client.post(path, json=body)
            assert answer.status_code < 300, answer.get_data(as_text=True)
            return answer.get_json()

        for task, (seed, (_, (width, height), centers)) in enumerate(scenes.items()):
            url = f"{images}/{seed}.png"
            with recorder.record() as trips["first pre-label"]:
                answer = ask("/predict", request(url, task))
            assert len(answer["results"][0]["result"]) == 3, "three airplanes were drawn"
            (x, y), aside = centers[0], (centers[0][0] + 0.6, centers[0][1] + 0.2)
            clicks = [click(width, x, y), click(width, *aside)]
            for item in clicks:
                item["original_height"], item["value"]["keypointlabels"] = height, ["airplane"]
            ask("/predict", request(url, task, clicks[:1]))
            with recorder.record() as trips["warm click"]:
                answer = ask("/predict", request(url, task, clicks))
            assert answer["results"][0]["result"], "no mask"
        task_with_mask = stored_task(folder)
        annotation = task_with_mask["annotations"][0]
        project = {"id": 1, "label_config": LABEL_CONFIG}
        event = {"action": "ANNOTATION_CREATED", "project": project, "task": task_with_mask, "annotation": annotation}
        for _ in range(2):
            with recorder.record() as trips["webhook"]:
                ask("/webhook", event)
        (folder / "export.json").write_text(json.dumps([task_with_mask]))
        for number in range(2):
            with recorder.record(settle=0) as trips["export record to REFER"]:
                export_one(folder / "export.json", folder / f"refer-{number}")
    recorder.close()
    return {name: trips[name] for name in ("warm click", "first pre-label", "webhook", "export record to REFER")}


def export_one(source: Path, destination: Path) -> None:
    """``pslg dataset export`` without its command line."""
    read: Callable[[], Any] = open_source(source, None, ImportRules(images=source.parent), [])
    report = export(read(), destination, "refer")
    assert (report.records, report.failed) == (1, []), report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--modules", action="store_true", help="name the modules of each trip")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trips = measure()
    if arguments.json:
        listed = {name: {"files": trip.modules()} if arguments.modules else {} for name, trip in trips.items()}
        print(json.dumps({name: {**trip.counts(), **listed[name]} for name, trip in trips.items()}))
        return
    print(f"{'':24}{'modules':>9}{'functions':>11}{'changes of file':>17}")
    for name, trip in trips.items():
        counts = trip.counts()
        print(f"{name:24}{counts['modules']:9}{counts['functions']:11}{counts['changes']:17}")
        for file in trip.modules() if arguments.modules else ():
            print(f"    {file}")


if __name__ == "__main__":
    main()
