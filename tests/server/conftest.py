"""A service with a tiny real pipeline, and an HTTP server that stands in for where images are."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image as PillowImage

from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from tests.server.tiny import tiny_pipeline

LABEL_CONFIG = """<View>
  <Header value="Expression: $expression"/>
  <TextArea name="prompt" toName="image" editable="true" maxSubmissions="1" showSubmitButton="true"/>
  <BrushLabels name="mask" toName="image" smart="false">
    <Label value="building"/><Label value="ship"/><Label value="water"/>
  </BrushLabels>
  <KeyPointLabels name="point" toName="image" smart="true" smartOnly="true">
    <Label value="building"/><Label value="ship"/><Label value="water"/>
  </KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true" smartOnly="true">
    <Label value="building"/><Label value="ship"/><Label value="water"/>
  </RectangleLabels>
  <Image name="image" value="$image" rotateControl="false"/>
</View>"""


@dataclass
class Reply:
    """What a path of the test's web server answers."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """A web server of the test: ``replies`` by path, ``seen`` requests as (method, path, headers, body)."""

    url: str
    replies: dict[str, Reply | Callable[[dict[str, str], bytes], Reply]]
    seen: list[tuple[str, str, dict[str, str], bytes]]

    def put(self, path: str, body: bytes, **headers: str) -> str:
        self.replies[path] = Reply(body, headers=headers)
        return self.url + path

    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.seen]


def make_site() -> Iterator[Site]:
    replies: dict[str, Reply | Callable[[dict[str, str], bytes], Reply]] = {}
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = dict(self.headers.items())
            seen.append((self.command, self.path, headers, body))
            reply = replies.get(self.path, Reply(b'{"detail": "not found"}', 404))
            if callable(reply):
                reply = reply(headers, body)
            # A reply with a date of its own gets no second one.
            (self.send_response_only if "Date" in reply.headers else self.send_response)(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield Site(f"http://127.0.0.1:{server.server_address[1]}", replies, seen)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    yield from make_site()


@pytest.fixture
def other_site() -> Iterator[Site]:
    yield from make_site()


def png(width: int = 80, height: int = 60, seed: int = 0) -> bytes:
    """A picture with some structure."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
    pixels[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = (200, 60, 40)
    return encode(PillowImage.fromarray(pixels))


def encode(image: PillowImage.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", image_hosts=("127.0.0.1",), model_threads=1, speck_area=4)


def make_service(settings: Settings) -> Iterator[LabelingService]:
    service = LabelingService(settings, tiny_pipeline)
    service.start()
    assert service.model.wait(60)
    yield service
    service.close()


@pytest.fixture
def service(settings: Settings) -> Iterator[LabelingService]:
    yield from make_service(settings)


@pytest.fixture
def client(settings: Settings, service: LabelingService) -> FlaskClient:
    return create_app(settings, service).test_client()


def task(identity: int, url: str, expression: Any = "the building", **more: Any) -> dict[str, Any]:
    return {"id": identity, "data": {"image": url, "expression": expression}, **more}


def batch(*tasks: dict[str, Any], label_config: str = LABEL_CONFIG) -> dict[str, Any]:
    return {
        "tasks": list(tasks),
        "project": "2.1795426155",
        "label_config": label_config,
        "params": {"login": None, "password": None, "context": None},
    }


def interactive(
    found: dict[str, Any], result: list[dict[str, Any]] | None, label_config: str = LABEL_CONFIG
) -> dict[str, Any]:
    body = batch(found, label_config=label_config)
    body["params"]["context"] = {"result": result}
    return body
