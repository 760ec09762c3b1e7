"""Options that the environment gives, and a grounder without weights that needs them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.pipeline import config as pipeline_config
from backend.pipeline import load_config, load_pipeline
from backend.pipeline.options import missing_variables
from backend.pipeline.weights import model_version
from dataset_tools.errors import ConfigError
from dataset_tools.synthetic import draw_scene

SECRET = "sk-0123456789abcdef"
CONFIG = """
grounder:
  kind: service
  options: {url_env: SERVICE_URL, api_key_env: SERVICE_KEY}
segmenter: {kind: compact-sam, weights: compact_segmenter}
"""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A server that answers every question with one box, and what it was asked with."""
    seen: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen["authorization"] = self.headers["Authorization"]
            body = json.dumps({"boxes": [seen["box"]]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = "tests.pipeline.service_grounder:load_service_grounder"
    monkeypatch.setitem(pipeline_config.GROUNDERS, "service", target)
    monkeypatch.setenv("SERVICE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("SERVICE_KEY", SECRET)
    yield seen
    server.shutdown()
    server.server_close()


def write(folder: Path, text: str) -> Path:
    path = folder / "service.yaml"
    path.write_text(text)
    return path


def test_a_service_without_weights_grounds_and_its_key_stays_secret(
    service: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = load_config(write(tmp_path, CONFIG))
    scene = draw_scene(8001, theme="airport", scale=1.3)
    target = max((item for item in scene.objects if item.category == "airplane"), key=lambda item: item.mask.sum())
    service["box"] = [*target.box, 0.9]
    pipeline = load_pipeline(config)
    (prelabel,) = pipeline.prelabel(scene.image, "the largest airplane")
    assert (prelabel.mask & target.mask).sum() > 0.7 * (prelabel.mask | target.mask).sum()
    assert service["authorization"] == f"Bearer {SECRET}"

    version = pipeline.model_version
    said = [caplog.text, version, repr(config), repr(vars(pipeline.grounder)), yaml.safe_dump(config.model_dump())]
    assert not [text for text in said if SECRET in text]
    monkeypatch.setenv("SERVICE_KEY", "another")
    assert model_version(config) == version
    renamed = CONFIG.replace("SERVICE_KEY", "OTHER_KEY").replace("SERVICE_URL", "OTHER_URL")
    assert model_version(load_config(write(tmp_path, renamed))) == version, "what variables are called changes no mask"
    plain = CONFIG.replace("{url_env", "{path: /other, url_env")
    assert model_version(load_config(write(tmp_path, plain))) != version


def test_a_variable_that_is_not_set_is_named(
    service: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERVICE_KEY")
    (missing,) = missing_variables(load_config(write(tmp_path, CONFIG)).grounder.options)
    assert missing == "SERVICE_KEY"
    with pytest.raises(
        ConfigError, match=r"grounder\.options\.api_key_env: the environment variable SERVICE_KEY is not"
    ):
        load_pipeline(write(tmp_path, CONFIG))


@pytest.mark.parametrize(
    "options",
    [
        f"api_key: {SECRET}",
        f"headers: {{Authorization: Bearer {SECRET}}}",
        f"headers: [{{X-Api-Key: {SECRET}}}]",
        f"api_key_env: {SECRET}",
        f"url: 'http://me:{SECRET}@host/boxes'",
        f"url: 'http://host/boxes?api_key={SECRET}'",
        f"path: /boxes, path_env: SERVICE_PATH, token: {SECRET}",
    ],
)
def test_a_secret_in_the_open_is_refused_and_not_repeated(
    service: dict[str, Any], tmp_path: Path, options: str
) -> None:
    path = write(
        tmp_path, f"grounder: {{kind: service, options: {{{options}}}}}\nsegmenter: {{kind: sam, weights: w}}\n"
    )
    with pytest.raises(ConfigError, match=r"grounder\.options") as refusal:
        load_config(path)
    assert "environment variable" in str(refusal.value) or "_env" in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_a_secret_under_a_wrong_key_is_not_repeated(service: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path, f"grounder: {{kind: service, api_key: {SECRET}}}\nsegmenter: {{kind: sam, weights: w}}\n")
    with pytest.raises(ConfigError, match=r"grounder\.api_key: unknown key") as refusal:
        load_config(path)
    assert SECRET not in str(refusal.value)


def test_weights_are_asked_for_where_the_grounder_has_some_only(service: dict[str, Any], tmp_path: Path) -> None:
    segmenter = "segmenter: {kind: compact-sam, weights: compact_segmenter}\n"
    with pytest.raises(ConfigError, match=r"grounder\.weights: missing; a grounder of kind compact has weights"):
        load_pipeline(write(tmp_path, f"grounder: {{kind: compact}}\n{segmenter}"))
    with pytest.raises(ConfigError, match="not taken; no grounder of kind service has weights"):
        load_pipeline(write(tmp_path, CONFIG.replace("kind: service", "kind: service\n  weights: compact_grounder")))
    with pytest.raises(ConfigError, match="unknown colour; this grounder takes url, api_key, path"):
        load_pipeline(write(tmp_path, CONFIG.replace("{url_env", "{colour: red, url_env")))
