"""gunicorn without ``pslg serve``: either as safe, or it does not start and says what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from tests.server.test_whole_requests import connected
from tests.test_serve import free_port

CONFIG = ["-c", "python:backend.server.gunicorn_config"]
WORKER = ["-k", "backend.server.whole_requests.WholeRequestWorker"]


def gunicorn(folder: Path, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PSLG_", "LABEL_STUDIO_"))}
    environ |= {"PSLG_STATE_DIR": str(folder / "state"), **settings}
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", *arguments, "backend.server.wsgi:app"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environ, stdout=log, stderr=log)


@pytest.mark.parametrize(
    ("arguments", "settings", "reason"),
    [
        ((), {}, "python:backend.server.gunicorn_config"),
        (("--threads", "128"), {}, "half-sent requests"),
        ((*WORKER, "--threads", "8"), {}, "8 threads, 128 are needed"),
        ((*WORKER, "--threads", "128", "-b", "0.0.0.0:{port}"), {}, "without credentials"),
        (CONFIG, {"PSLG_HOST": "0.0.0.0"}, "without credentials"),  # noqa: S104
    ],
)
def test_what_would_be_unsafe_does_not_start(
    tmp_path: Path, arguments: tuple[str, ...], settings: dict[str, str], reason: str
) -> None:
    port = str(free_port())
    bound = [part.format(port=port) for part in arguments]
    if "-b" not in bound and "-c" not in bound:
        bound += ["-b", f"127.0.0.1:{port}"]
    process = gunicorn(tmp_path, *bound, PSLG_PORT=port, **settings)
    try:
        assert process.wait(120) != 0
    finally:
        process.kill()
        process.wait(60)
    assert reason in (tmp_path / "log").read_text()


def test_with_its_config_it_is_as_safe_as_pslg_serve(tmp_path: Path) -> None:
    port = free_port()
    process = gunicorn(tmp_path, *CONFIG, PSLG_PORT=str(port), PSLG_CONFIG="none-such")
    try:
        for _ in range(600):
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=10)
                break
            except requests.RequestException:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        halves = [connected(port, b"GET /hea") for _ in range(200)]
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=10).json()["status"] == "UP"
        for half in halves:
            half.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
