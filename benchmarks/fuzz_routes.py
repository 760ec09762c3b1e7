"""The server's routes with bodies as Label Studio sends them, changed at random places. For ``benchmarks.fuzz``."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from benchmarks.image_server import served
from benchmarks.mutations import SLOW, Keep, Outcome, changed_bytes, changed_json, dumped, picture
from dataset_tools import brush_rle
from tests.server.tiny import tiny_pipeline

__all__ = ["fuzz_routes"]

CONFIG = """<View><Header value="$expression"/><TextArea name="prompt" toName="image"/>
<TextArea name="pslg_note" toName="image" editable="false"/>
<BrushLabels name="mask" toName="image"><Label value="building"/><Label value="ship"/></BrushLabels>
<PolygonLabels name="polygon" toName="image"><Label value="building"/></PolygonLabels>
<KeyPointLabels name="point" toName="image" smart="true" smartOnly="true"><Label value="building"/></KeyPointLabels>
<RectangleLabels name="box" toName="image" smart="true" smartOnly="true"><Label value="building"/></RectangleLabels>
<BrushLabels name="stroke" toName="image" smart="true" smartOnly="true"><Label value="building"/></BrushLabels>
<Image name="image" value="$image"/></View>"""
ALLOWED = {200, 201, 400, 404, 405, 413, 503}


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
    image = picture()
    with served(lambda _: image) as base:
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
                text = dumped(mutant)
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
