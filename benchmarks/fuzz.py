"""Mutated requests and files against every door: ``python -m benchmarks.fuzz --count 100000``.

- ``routes``: the server's routes with bodies as Label Studio sends them, changed at random places (drafts with brush
  codes, polygons, clicks, boxes, strokes, texts, webhooks, set-ups). Wrong is a 500, an answer that takes more than ten
  seconds of CPU time, a slot too few, a region whose brush code cannot be read.
- ``importers``: every dataset format that is read, exports of Label Studio, pictures, weights, brush codes. Wrong is
  every error but the project's own, and more than ten seconds.

A crash of the process shows by its exit status; ``--keep`` writes the input at work, and those that went wrong, to a
folder. The same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import logging
import pickle
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from backend.pipeline.grounding.lqvg import load_lqvg
from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from benchmarks.mutations import changed_bytes, changed_json
from dataset_tools import brush_rle, export, formats, image_files, sources, statistics
from dataset_tools.checks.validate import validate
from dataset_tools.errors import PslgError
from dataset_tools.formats import refer
from dataset_tools.label_studio.exports import ImportRules
from dataset_tools.records import Provenance, Record, Sample, SourceImage, target_of
from tests.server.tiny import tiny_pipeline

SLOW = 10.0
CONFIG = """<View><Header value="$expression"/><TextArea name="prompt" toName="image"/>
<TextArea name="pslg_note" toName="image" editable="false"/>
<BrushLabels name="mask" toName="image"><Label value="building"/><Label value="ship"/></BrushLabels>
<PolygonLabels name="polygon" toName="image"><Label value="building"/></PolygonLabels>
<KeyPointLabels name="point" toName="image" smart="true" smartOnly="true"><Label value="building"/></KeyPointLabels>
<RectangleLabels name="box" toName="image" smart="true" smartOnly="true"><Label value="building"/></RectangleLabels>
<BrushLabels name="stroke" toName="image" smart="true" smartOnly="true"><Label value="building"/></BrushLabels>
<Image name="image" value="$image"/></View>"""
CASES = Path(__file__).parents[1] / "tests" / "data" / "cases"
ALLOWED = {200, 201, 400, 404, 405, 413, 503}


@dataclass
class Outcome:
    """What a part of the run saw.

    Attributes:
        inputs: how many were tried.
        answers: by status, or by the name of the error.
        wrong: what must not happen, with a description.
        slowest: seconds.
    """

    inputs: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "inputs": self.inputs, "answers": dict(self.answers.most_common()), "wrong": len(self.wrong),
            "first_wrong": self.wrong[:20], "slowest_s": round(self.slowest, 2),
        }  # fmt: skip


def picture(seed: int = 0, width: int = 48, height: int = 40) -> bytes:
    """A small PNG with some structure."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
    pixels[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = (200, 60, 40)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Keep:
    """Writes the input at work to a folder, so that a crash can be told; nothing without one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._last = b""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def now(self, data: bytes) -> None:
        """This is tried next."""
        self._last = data
        if self._folder is not None:
            (self._folder / "at_work").write_bytes(data)

    def wrong(self, what: str, number: int) -> None:
        """It went wrong."""
        if self._folder is not None:
            (self._folder / f"wrong-{what}-{number}").write_bytes(self._last)


@contextmanager
def image_server() -> Iterator[str]:
    """Address of a server of this process with a picture at every path."""
    data = picture()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def bodies(base: str) -> list[tuple[str, Any]]:
    """(path, body) of honest requests; their mutations are what is sent."""
    mask = np.zeros((40, 48), bool)
    mask[10:20, 12:30] = True
    code = brush_rle.encode(mask)
    shared = {"original_width": 48, "original_height": 40, "image_rotation": 0}

    def region(kind: str, name: str, **value: Any) -> dict[str, Any]:
        return {"id": name, "type": kind, "from_name": name, "to_name": "image", **shared, "value": value}

    brush = region("brushlabels", "mask", format="rle", rle=code, brushlabels=["building"])
    polygon = region(
        "polygonlabels", "polygon", points=[[10, 10], [60, 12], [50, 70]], closed=True, polygonlabels=["building"]
    )
    point = {
        **region("keypointlabels", "point", x=40.0, y=40.0, width=0.5, keypointlabels=["building"]),
        "is_positive": True,
    }
    box = region("rectanglelabels", "box", x=20, y=20, width=40, height=40, rotation=10, rectanglelabels=["building"])
    stroke = region("brushlabels", "stroke", format="rle", rle=code, brushlabels=["building"])
    words = region("textarea", "prompt", text=["the building", "two ships"])
    config = {"label_config": CONFIG, "project": "3.1795426155"}

    def asked(result: list[Any] | None, **more: Any) -> dict[str, Any]:
        data = {"image": f"{base}/a.png", "expression": "the building"}
        context = {"context": {"result": result}} if result is not None else {"context": None}
        return {"tasks": [{"id": 1, "data": data, **more}], **config, "params": {"login": None, **context}}

    draft = [{"id": 5, "result": [brush, polygon], "updated_at": "2026-01-01T00:00:00Z", "lead_time": 2.0}]
    annotation = {"id": 9, "result": [brush, polygon, words], "completed_by": {"id": 1}, "was_cancelled": False}
    project = {
        "id": 3, "title": "p", "label_config": CONFIG, "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-02T00:00:00Z",
    }  # fmt: skip
    task = {"id": 1, "data": {"image": f"{base}/a.png", "expression": "the ship"}, "updated_at": "2026-01-02T00:00:00Z"}
    dated = {**annotation, "created_at": "2026-01-02T00:00:00Z", "updated_at": "2026-01-02T00:00:00Z", "task": 1}
    return [
        ("/predict", asked(None)),
        ("/predict", asked(None, predictions=[{"result": [brush]}], annotations=[annotation])),
        ("/predict", asked([point], drafts=draft)),
        ("/predict", asked([point, {**point, "is_positive": False}], drafts=draft)),
        ("/predict", asked([box])),
        ("/predict", asked([stroke])),
        ("/predict", asked([words])),
        ("/predict", asked([point], annotations=[annotation])),
        (
            "/setup",
            {"project": "3.1795426155", "schema": CONFIG, "hostname": "http://127.0.0.1:1", "access_token": "x"},
        ),
        ("/webhook", {"action": "ANNOTATION_CREATED", "annotation": dated, "task": task, "project": project}),
        ("/webhook", {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 9}], "project": project}),
        ("/webhook", {"action": "TASKS_DELETED", "tasks": [{"id": 1}], "project": project}),
        ("/webhook", {"action": "PROJECT_UPDATED", "project": project}),
    ]


def fuzz_routes(count: int, seed: int, folder: Path, keep: Keep) -> Outcome:
    """``count`` requests, one after the other."""
    rng, found = random.Random(seed), Outcome()
    with image_server() as base:
        settings = Settings(state_dir=folder / "state", image_hosts=("127.0.0.1",), model_threads=1, fetch_timeout=2)
        service = LabelingService(settings, tiny_pipeline)
        service.start()
        service.model.wait(60)
        client = create_app(settings, service).test_client()
        honest = bodies(base)
        raw = [(path, orjson.dumps(body)) for path, body in honest]
        for number in range(count):
            if rng.random() < 0.8:
                path, body = rng.choice(honest)
                mutant = changed_json(rng, body)
                text = _dumped(mutant)
            else:
                path, data = rng.choice(raw)
                text = changed_bytes(rng, data)
            keep.now(f"{path}\n".encode() + text)
            begin = time.process_time()
            answer = client.post(path, data=text, content_type="application/json")
            seconds = time.process_time() - begin
            found.inputs += 1
            found.slowest = max(found.slowest, seconds)
            found.answers[str(answer.status_code)] += 1
            problem = _problem(path, text, answer)
            if seconds > SLOW:
                problem = f"{seconds:.1f} s"
            if problem:
                found.wrong.append(f"routes {number}: {path}: {problem}")
                keep.wrong("route", number)
            if number % 500 == 499:
                service.store.refresh()
        service.close()
    return found


def _problem(path: str, text: bytes, answer: Any) -> str | None:
    if answer.status_code not in ALLOWED:
        return f"status {answer.status_code}: {answer.data[:200]!r}"
    if path != "/predict" or answer.status_code != 200:
        return None
    sent, results = orjson.loads(text), answer.get_json()["results"]
    context = (sent.get("params") or {}).get("context") if isinstance(sent.get("params") or {}, dict) else None
    wanted = 1 if context is not None else len(sent["tasks"])
    if len(results) != wanted:
        return f"{len(results)} results for {wanted} tasks"
    for slot in results:
        for region in slot["result"] if isinstance(slot, dict) else ():
            code = region["value"].get("rle")
            if code is not None:
                brush_rle.decode(code, region["original_height"], region["original_width"])
    return None


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (orjson.JSONEncodeError, TypeError):
        try:
            return json.dumps(value).encode()  # numbers of any length, NaN and Infinity
        except (ValueError, RecursionError):
            return b"[" * 2000


def datasets(folder: Path) -> dict[str, Path]:
    """A small dataset in every format that is written and read, and a Label Studio export."""
    samples = []
    for number in range(2):
        (folder / "source").mkdir(parents=True, exist_ok=True)
        path = folder / "source" / f"{number}.png"
        path.write_bytes(picture(number))
        mask = np.zeros((40, 48), bool)
        mask[5:25, 8 + number : 30] = True
        target = target_of(mask)
        records = tuple(
            Record(words, "building", (target,), "train", "plain", Provenance(source="fuzz"), 10 * number + index)
            for index, words in enumerate(("the building", "the upper building"))
        )
        samples.append(Sample(SourceImage(f"{number}.png", 48, 40, str(path)), records))
    made = {}
    for name in formats.READ:
        if formats.FORMATS[name].writer is None:
            continue
        with contextlib.suppress(PslgError):  # an optional package is missing
            export.export(iter(samples), folder / name, name)
            made[name] = folder / name
    return made


def fuzz_importers(count: int, seed: int, folder: Path, keep: Keep) -> Outcome:
    """``count`` damaged files, each read as a user's command would."""
    rng, found = random.Random(seed), Outcome()
    tries: list[tuple[str, Callable[[], object]]] = []
    for name, root in datasets(folder).items():
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in ("README.md",)]
        index = [path for path in files if path.suffix not in (".png", ".tif", ".jpg")]
        tries.append((name, partial(damage, rng, root, index, name, keep)))
    cases = [json.loads(path.read_bytes()) for path in sorted(CASES.glob("*.json"))]
    tries += [("label studio export", lambda: damaged_export(rng, rng.choice(cases), folder, keep))] * 2
    pictures = [picture(1), *(path.read_bytes() for path in sorted(CASES.glob("*.tif")))]
    tries += [("picture", lambda: damaged_picture(rng, rng.choice(pictures), keep))]
    tries += [("brush code", lambda: damaged_code(rng, keep))] * 3
    tries += [("lqvg weights", lambda: damaged_weights(rng, folder, keep))]
    for number in range(count):
        name, run = tries[number % len(tries)]
        begin = time.process_time()
        try:
            run()
            answer = "read"
        except PslgError as error:
            answer = type(error).__name__
        except Exception as error:  # whatever it is, that is what is looked for
            answer = f"{name}: {type(error).__name__}"
            found.wrong.append(f"importers {number}: {name}: {_where(error)}")
            keep.wrong(name.replace(" ", "-"), number)
        seconds = time.process_time() - begin
        found.inputs += 1
        found.slowest = max(found.slowest, seconds)
        found.answers[answer] += 1
        if seconds > SLOW:
            found.wrong.append(f"importers {number}: {name}: {seconds:.1f} s")
            keep.wrong(name.replace(" ", "-"), number)
    return found


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if "_tools/" in f.filename or "backend/" in f.filename), frames[-1])
    return f"{type(error).__name__}: {str(error)[:160]} ({Path(last.filename).name}:{last.lineno})"


def damage(rng: random.Random, root: Path, index: list[Path], name: str, keep: Keep) -> None:
    """Change one index file of a dataset, read everything, and put the file back."""
    file = rng.choice(index)
    before = file.read_bytes()
    data = _changed_file(rng, file, before)
    keep.now(f"{name} {file.relative_to(root)}\n".encode() + data)
    outside = sorted(root.parent.iterdir())
    file.write_bytes(data)
    try:
        for sample in formats.read(root, name, lambda _row: None):
            for record in sample.records:
                sample.area(record)
        if rng.random() < 0.1:
            validate(root, name, pixels=False)
        if rng.random() < 0.05:
            statistics.collect(formats.read(root, name, lambda _row: None))
    finally:
        file.write_bytes(before)
        shutil.rmtree(root / "unpacked", ignore_errors=True)
        if sorted(root.parent.iterdir()) != outside:
            raise AssertionError(f"{name} wrote beside its folder")


def _changed_file(rng: random.Random, file: Path, data: bytes) -> bytes:
    """A JSON file or a pickle is changed as what it holds, half of the time; everything else byte by byte."""
    if rng.random() < 0.5:
        if file.suffix == ".json":
            return _dumped(changed_json(rng, json.loads(data)))
        if file.suffix == ".jsonl":
            lines = data.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = _dumped(changed_json(rng, json.loads(lines[at])))
            return b"\n".join(lines)
        if file.suffix == ".p":
            with contextlib.suppress(RecursionError, OverflowError):
                return pickle.dumps(changed_json(rng, refer.load_refs(file)), 2)
    return changed_bytes(rng, data)


def damaged_export(rng: random.Random, tasks: Any, folder: Path, keep: Keep) -> None:
    """A JSON export of Label Studio."""
    file = folder / "export.json"
    data = _dumped(changed_json(rng, tasks)) if rng.random() < 0.8 else changed_bytes(rng, _dumped(tasks))
    keep.now(b"export\n" + data)
    file.write_bytes(data)
    for sample in sources.open_source(file, None, ImportRules(images=CASES / "uploads"), [])():
        for record in sample.records:
            sample.area(record)


def damaged_picture(rng: random.Random, data: bytes, keep: Keep) -> None:
    """A PNG or TIFF file."""
    changed = changed_bytes(rng, data)
    keep.now(b"picture\n" + changed)
    image_files.decode(changed, max_pixels=1_000_000)


def damaged_code(rng: random.Random, keep: Keep) -> None:
    """A brush code: random, or a good one changed."""
    height, width = rng.randrange(1, 40), rng.randrange(1, 40)
    mask = np.frombuffer(rng.randbytes(height * width), np.uint8).reshape(height, width) > 200
    code: Any = list(changed_bytes(rng, bytes(brush_rle.encode(mask))))
    if rng.random() < 0.2:
        code = changed_json(rng, code)
    keep.now(b"brush code\n" + repr(code).encode()[:10_000])
    brush_rle.decode(code, height, width)


def damaged_weights(rng: random.Random, folder: Path, keep: Keep) -> None:
    """A checkpoint that is none."""
    file = folder / "weights.pth"
    data = changed_bytes(rng, rng.choice((b"PK\x03\x04", b"\x80\x02", b"", b"\x80\x02}q\x00.")) + rng.randbytes(300))
    keep.now(b"weights\n" + data)
    file.write_bytes(data)
    load_lqvg(file)


PARTS = {"routes": fuzz_routes, "importers": fuzz_importers}


def fuzz(parts: Sequence[str], count: int, seed: int, keep: Path | None = None) -> dict[str, Outcome]:
    """``count`` inputs to the ``parts`` together, in a folder that is removed."""
    found = {}
    for part in parts:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's and numpy's, on damaged files
            found[part] = PARTS[part](count // len(parts), seed, Path(folder), Keep(keep))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="inputs to all parts together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", type=Path, help="folder for the inputs that went wrong")
    arguments = parser.parse_args()
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    begin = time.process_time()
    found = fuzz(arguments.parts, arguments.count, arguments.seed, arguments.keep)
    result = {part: outcome.shown() for part, outcome in found.items()}
    print(
        json.dumps({**result, "seed": arguments.seed, "cpu_seconds": round(time.process_time() - begin, 1)}, indent=1)
    )
    sys.exit(1 if any(outcome.wrong for outcome in found.values()) else 0)


if __name__ == "__main__":
    main()
