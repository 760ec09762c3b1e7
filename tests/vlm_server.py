"""A real HTTP server on 127.0.0.1 with the form of chat completions, whose answers a test writes."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from backend.pipeline.types import Image


@dataclass
class Said:
    """One answer: words, or a fault."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    pause: float = 0.0
    drop: bool = False
    trickle: bool = False
    finish: str = "stop"


@dataclass
class Asked:
    """One request as it came."""

    path: str
    authorization: str | None
    body: dict[str, Any]

    @property
    def image(self) -> Image:
        address = self.body["messages"][0]["content"][0]["image_url"]["url"]
        content = np.frombuffer(base64.b64decode(address.split(",", 1)[1]), np.uint8)
        decoded = cv2.imdecode(content, cv2.IMREAD_COLOR)
        assert decoded is not None
        return np.ascontiguousarray(decoded[:, :, ::-1], np.uint8)

    @property
    def words(self) -> str:
        return str(self.body["messages"][0]["content"][1]["text"])


class VlmServer:
    """Answers with what ``say`` makes of a request, in turn; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.say: Callable[[Asked], Said] = lambda _: Said("[]")
        self.url = ""

    def script(self, *answers: Said | str) -> None:
        """Say these one after another, the last one for ever."""
        left = [Said(one) if isinstance(one, str) else one for one in answers]
        self.say = lambda _: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def vlm_server() -> Iterator[VlmServer]:
    server = VlmServer()
    stopping = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = Asked(self.path, self.headers.get("Authorization"), body)
            server.asked.append(asked)
            said = server.say(asked)
            if said.pause:
                stopping.wait(said.pause)
            if said.drop:
                self.connection.close()
                return
            content = said.raw
            if content is None:
                choice = {
                    "index": 0,
                    "message": {"role": "assistant", "content": said.text},
                    "finish_reason": said.finish,
                }
                usage = {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320}
                content = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
            self.send_response(said.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                if said.trickle:
                    for byte in content:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(0.05)
                else:
                    self.wfile.write(content)
            except OSError:
                self.close_connection = True  # the client has given up

        def log_message(self, format: str, *args: Any) -> None:
            """Keeps quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        stopping.set()
        http.shutdown()
        http.server_close()
        thread.join(5)
