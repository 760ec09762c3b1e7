"""Half-sent requests and idle connections at the server's own door: /health answers through all of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.test_serve import free_port

# A server of its own with a trivial application: what is tried is the worker, not the models.
PROGRAM = """
import sys
from gunicorn.app.base import BaseApplication
from backend.server import whole_requests
whole_requests.HEAD_SECONDS, whole_requests.BODY_SECONDS = 2.0, 3.0
worker = type("Worker", (whole_requests.WholeRequestWorker,), {"body_bytes": 1_000_000})
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(str(len(body)))))])
    return [str(len(body)).encode()]
class Server(BaseApplication):
    def load_config(self):
        for name, value in {"bind": f"127.0.0.1:{sys.argv[1]}", "threads": 8, "worker_class": worker, "timeout": 0,
                            "graceful_timeout": 1, "control_socket_disable": True}.items():
            self.cfg.set(name, value)
    def load(self):
        return app
Server().run()
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    number = free_port()
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(number)], stdout=output, stderr=output, env={**os.environ}
        )
        try:
            for _ in range(300):
                try:
                    requests.get(f"http://127.0.0.1:{number}/", timeout=5)
                    break
                except requests.ConnectionError:
                    assert process.poll() is None, Path(log).read_text()
                    time.sleep(0.1)
            yield number
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def connected(port: int, begin: bytes) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port), timeout=30)
    found.sendall(begin)
    return found


HALVES = {
    "nothing": b"",
    "half a line": b"GET /hea",
    "half a head": b"GET /health HTTP/1.1\r\nHost: x\r\n",
    "no body": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
    "half a body": b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
}


@pytest.mark.parametrize("begin", HALVES.values(), ids=HALVES.keys())
def test_health_answers_beside_half_requests_and_they_are_cut(port: int, begin: bytes) -> None:
    halves = [connected(port, begin) for _ in range(400)]
    for _ in range(5):
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200
    for half in halves:
        answer = b""
        try:
            while data := half.recv(1000):
                answer += data
        except ConnectionResetError:
            pass
        assert answer == b"" or b"408" in answer
        half.close()


def test_a_dripping_request_is_cut_too(port: int) -> None:
    slow = connected(port, b"GET / HTTP/1.1\r\nX-A: ")
    cut = False
    for _ in range(300):
        try:
            slow.sendall(b"a")
        except OSError:
            cut = True
            break
        time.sleep(0.1)
    slow.close()
    assert cut


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused(port: int, request_: bytes, status: bytes) -> None:
    with connected(port, request_) as found:
        assert found.recv(1000).startswith(b"HTTP/1.1 " + status)
    assert requests.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200


def test_connections_are_kept_and_bodies_arrive_whole(port: int) -> None:
    with requests.Session() as session:
        for size in (0, 1, 70_000, 999_999):
            assert session.post(f"http://127.0.0.1:{port}/", data=b"x" * size, timeout=30).text == str(size)
            assert session.get(f"http://127.0.0.1:{port}/", timeout=30).text == "0"
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    with connected(port, head) as found:
        assert found.recv(1000).startswith(b"HTTP/1.1 100")
        found.sendall(b"12345")
        answer = b""
        while b"\r\n\r\n5" not in answer and (data := found.recv(1000)):
            answer += data
        assert b"200 OK" in answer
    two = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2
    with connected(port, two) as found:
        answer = b""
        while answer.count(b"200 OK") < 2 and (data := found.recv(1000)):
            answer += data
        assert answer.count(b"200 OK") == 2
