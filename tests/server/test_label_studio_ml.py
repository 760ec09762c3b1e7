"""Under label-studio-ml the service must answer as under its own app: with the real 1.0.9, and by 2.x's interface."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.labeling_configs import read_labeling_config
from backend.server import label_studio_ml
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools import synthetic
from tests.conftest import REPOSITORY

ONE_LABEL = (
    '<View><Header value="$expression"/><Image name="img" value="$image"/>'
    '<BrushLabels name="brush" toName="img" smart="false"><Label value="object"/></BrushLabels></View>'
)


@pytest.fixture
def image_server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "images"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _python() -> Path:
    named = os.environ.get("PSLG_LABEL_STUDIO_ML", str(REPOSITORY / ".venv-label-studio-ml" / "bin" / "python"))
    if not Path(named).is_file():
        reason = f"no label-studio-ml environment at {named}: make label-studio-ml"
        if "label-studio" in os.environ.get("PSLG_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(named)


def _without_ids(results: list[Any]) -> list[Any]:
    """Region ids are random by contract."""
    text = json.dumps(results)
    for slot in results:
        for region in slot["result"]:
            text = text.replace(region["id"], "id")
    without: list[Any] = json.loads(text)
    return without


def test_the_real_label_studio_ml_gives_the_same_predictions(image_server: str, tmp_path: Path) -> None:
    python = _python()
    scene = synthetic.draw_scene(3)
    Image.fromarray(scene.image).save(tmp_path / "images" / "scene.png")
    task = {"data": {"image": f"{image_server}/scene.png"}}
    tasks = [
        {**task, "id": number, "data": {**task["data"], "expression": f"all the {category}s"}}
        for number, category in enumerate(sorted({item.category for item in scene.objects}), 1)
    ]
    absent = {**task, "id": 99, "data": {**task["data"], "expression": "the windmill"}}
    keypoint = {
        "original_width": 800,
        "original_height": 600,
        "value": {"x": 50.0, "y": 50.0, "width": 0.3, "keypointlabels": ["airplane"], "labels": ["airplane"]},
        "is_positive": True,
        "id": "click",
        "from_name": "point",
        "to_name": "image",
        "type": "keypointlabels",
    }
    rrsisd = read_labeling_config("rrsisd")
    bodies = {
        "setup": {"project": "1.5", "schema": rrsisd, "hostname": "http://localhost:1", "access_token": "x"},
        "predict": [
            {"tasks": [*tasks, absent], "project": "1.5", "label_config": rrsisd, "params": {"context": None}},
            # Another project than the one that was set up last, with another labeling config.
            {"tasks": tasks, "project": "2.6", "label_config": ONE_LABEL, "params": {"context": None}},
            {"tasks": [task], "project": "1.5", "label_config": rrsisd, "params": {"context": {"result": [keypoint]}}},
        ],
        "webhook": {"action": "ANNOTATION_CREATED", "project": {"id": 1, "label_config": rrsisd}},
    }
    (tmp_path / "requests.json").write_text(json.dumps(bodies))
    done = subprocess.run(
        [str(python), "-m", "tests.server.label_studio_ml_answers", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers["versions"][0] == "1.0.9"
    ours, theirs = answers["ours"], answers["theirs"]
    assert theirs["setup"] == ours["setup"]
    assert ours["setup"]["model_version"].startswith("compact-")
    for one, other in zip(ours["predict"], theirs["predict"], strict=True):
        assert _without_ids(other) == _without_ids(one)
    assert any(slot["result"] for slot in ours["predict"][0])
    assert {region["value"]["brushlabels"][0] for slot in ours["predict"][1] for region in slot["result"]} == {"object"}
    assert ours["predict"][2][0]["result"]
    assert (theirs["health"], theirs["webhook"]) == (200, 201)
    assert answers["events"] == ["ANNOTATION_CREATED"] * 2


class _SecondInterface:
    """The parts of label-studio-ml 2.x's base class that a model sees (2.x is not on PyPI)."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.label_config = label_config
        self.cache: dict[str, str] = {}
        self.setup()

    def setup(self) -> None: ...

    def set(self, key: str, value: str) -> None:
        self.cache[key] = value


def test_the_interface_of_version_2_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, model = types.ModuleType("label_studio_ml"), types.ModuleType("label_studio_ml.model")
    model.__dict__["LabelStudioMLBase"] = _SecondInterface
    monkeypatch.setitem(sys.modules, "label_studio_ml", package)
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", model)
    service = LabelingService(Settings.load({}, state_dir=tmp_path))
    created = label_studio_ml.model_class(service)(project_id="1", label_config=ONE_LABEL)
    assert created.cache["model_version"] == service.model.version
    service.start()
    assert service.model.wait(300), service.model.problem
    # An image that cannot be fetched: its slot stays, empty.
    task = {"id": 7, "data": {"image": "http://127.0.0.1:9/x.png", "expression": "the ship"}}
    assert created.predict([task], context=None) == [[]]
    assert created.fit("ANNOTATION_CREATED", {"project": {"id": 1}}) == {}
    assert [event.action for event in service.events.since()] == ["ANNOTATION_CREATED"]
    service.close()
