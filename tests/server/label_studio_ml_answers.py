"""Run by the Python of the label-studio-ml environment: the answers of our own app and of label-studio-ml's, as JSON.

    python -m tests.server.label_studio_ml_answers FOLDER

FOLDER holds ``requests.json`` (a setup body, predict bodies, a webhook body) and takes the service's state.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flask
from flask.testing import FlaskClient

from backend.server import label_studio_ml
from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings


def main(folder: Path) -> None:
    bodies = json.loads((folder / "requests.json").read_text())
    settings = Settings.load({}, state_dir=folder / "state", image_hosts="127.0.0.1", model_threads=1)
    service = LabelingService(settings)
    service.start()
    assert service.model.wait(300), service.model.problem
    answers: dict[str, Any] = {"versions": [version("label-studio-ml"), version("flask")]}
    for name, app in (("ours", create_app(settings, service)), ("theirs", label_studio_ml.create_app(service))):
        answers[name] = _answers(app, bodies)
    answers["events"] = [event.action for event in service.events.since()]
    service.close()
    print(json.dumps(answers))  # noqa: T201 - read by the test


def _answers(app: flask.Flask, bodies: dict[str, Any]) -> dict[str, Any]:
    client: FlaskClient = app.test_client()
    return {
        "health": client.get("/health").status_code,
        "setup": client.post("/setup", json=bodies["setup"]).get_json(),
        "predict": [client.post("/predict", json=body).get_json()["results"] for body in bodies["predict"]],
        "webhook": client.post("/webhook", json=bodies["webhook"]).status_code,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
