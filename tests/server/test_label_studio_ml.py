"""Under label-studio-ml the service must answer as under its own app: with the real 1.0.9, and by 2.x's interface."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import flask
import pytest
from flask.testing import FlaskClient
from PIL import Image

from backend.labeling_configs import read_labeling_config
from backend.server import label_studio_ml
from backend.server.app import create_app
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
    """What matters of label-studio-ml 2.x's base class (2.x is not on PyPI): one config per project is kept."""

    stored: ClassVar[dict[tuple[str, str], Any]] = {}

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        self.setup()

    def setup(self) -> None: ...

    @property
    def label_config(self) -> str | None:
        found: str | None = self.get("label_config")
        return found

    def get(self, key: str) -> Any:
        return self.stored.get((self.project_id, key))

    def set(self, key: str, value: Any) -> None:
        self.stored[self.project_id, key] = value

    def set_extra_params(self, extra_params: Any) -> None:
        raise RuntimeError(f"extra_params: {extra_params}")


def _second_api(model: type[Any]) -> flask.Flask:
    """2.x's application as ML2 describes it: four events, a traceback for every error, ``context={}`` by default."""
    app = flask.Flask("label_studio_ml")
    api = sys.modules["label_studio_ml.api"]

    def answered(view: Callable[[dict[str, Any]], Any]) -> Callable[[], Any]:
        @functools.wraps(view)
        def guarded() -> Any:
            try:
                return view(flask.request.get_json())
            except Exception:
                return traceback.format_exc(), 500

        return guarded

    @app.post("/setup")
    @answered
    def setup(body: dict[str, Any]) -> Any:
        made = model(project_id=body["project"].split(".")[0], label_config=body["schema"])
        if body.get("extra_params"):
            made.set_extra_params(body["extra_params"])
        return {"model_version": made.get("model_version")}

    @app.post("/predict")
    @answered
    def predict(body: dict[str, Any]) -> Any:
        params = body.get("params", {})
        context = params.pop("context", {})
        made = model(project_id=body["project"].split(".")[0], label_config=body.get("label_config"))
        made.set("label_config", "<View/>")  # another request of the project, in the meantime
        return {"results": made.predict(body["tasks"], context=context, **params)}

    @app.post("/webhook")
    @answered
    def webhook(body: dict[str, Any]) -> Any:
        event = body.pop("action")
        if event not in api.__dict__["TRAIN_EVENTS"]:
            return {"status": "Unknown event"}, 200
        made = model(str(body["project"]["id"]), label_config=body["project"]["label_config"])
        return {"result": made.fit(event, body), "status": "ok"}, 201

    return app


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LabelingService, FlaskClient]]:
    """What ``label-studio-ml start`` makes of the model file of the docs."""
    package, model, api = (types.ModuleType(f"label_studio_ml{end}") for end in ("", ".model", ".api"))
    model.__dict__["LabelStudioMLBase"] = _SecondInterface
    api.__dict__["TRAIN_EVENTS"] = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")
    package.__dict__["api"] = api
    for module in (package, model, api):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    made: list[LabelingService] = []

    class Watched(LabelingService):
        def __init__(self, settings: Settings) -> None:
            super().__init__(settings)
            made.append(self)

    monkeypatch.setattr(label_studio_ml, "LabelingService", Watched)
    settings = Settings.load({}, state_dir=tmp_path / "state", image_hosts="127.0.0.1", model_threads=1)
    app = _second_api(label_studio_ml.serving_model(settings))
    (service,) = made
    assert service.model.wait(300), service.model.problem
    yield service, app.test_client()
    service.close()


def test_version_2_is_served_from_its_own_start(
    second: tuple[LabelingService, FlaskClient], image_server: str, tmp_path: Path
) -> None:
    service, client = second
    scene = synthetic.draw_scene(3)
    Image.fromarray(scene.image).save(tmp_path / "images" / "scene.png")
    setup = {"project": "1.5", "schema": ONE_LABEL, "extra_params": {"note": 1}}
    assert client.post("/setup", json=setup).get_json() == {"model_version": service.model.version}
    data = {"image": f"{image_server}/scene.png", "expression": "all the buildings"}
    body = {"tasks": [{"id": 1, "data": data}], "project": "1.5", "label_config": ONE_LABEL}
    (slot,) = client.post("/predict", json=body).get_json()["results"]  # no params: a pre-label
    assert {region["value"]["brushlabels"][0] for region in slot["result"]} == {"object"}, "its own config answers"


def test_every_webhook_reaches_the_store_under_version_2(second: tuple[LabelingService, FlaskClient]) -> None:
    service, client = second
    sent = ["ANNOTATION_CREATED", "ANNOTATIONS_DELETED", "TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED"]
    for action in sent:
        body = {"action": action, "project": {"id": 1, "label_config": ONE_LABEL}}
        assert client.post("/webhook", json=body).status_code == 201
    assert [event.action for event in service.events.since()] == sent


def test_errors_under_version_2_are_those_of_our_own_application(second: tuple[LabelingService, FlaskClient]) -> None:
    service, client = second
    body = {"tasks": [{"id": 1, "data": {}}], "project": "1.5", "label_config": "<View/>"}
    ours = create_app(service.settings, service).test_client().post("/predict", json=body)
    theirs = client.post("/predict", json=body)
    assert (theirs.status_code, theirs.get_json()) == (ours.status_code, ours.get_json()) == (400, ours.get_json())


@pytest.mark.usefixtures("second")
def test_trainings_are_looked_after_under_version_2() -> None:
    assert "training-keeper" in {thread.name for thread in threading.enumerate()}
