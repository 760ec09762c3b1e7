from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from backend.cli import pslg
from backend.commands.serve import RESEARCH_NOTE, start_notes
from backend.settings import Settings, is_dotless


def notes(**values: object) -> str:
    return "\n".join(start_notes(Settings.model_validate(values), uses_compact_weights=True))


def test_the_url_to_paste_is_printed() -> None:
    assert "http://localhost:9090" in notes()
    assert "http://localhost:9191" in notes(host="0.0.0.0", port=9191)  # noqa: S104
    assert "container" in notes(host="0.0.0.0")  # noqa: S104
    assert RESEARCH_NOTE in notes()


def test_a_host_without_dot_is_warned_of() -> None:
    assert "has no dot" in notes(host="backend")
    assert "has no dot" not in notes(host="backend.local")


@pytest.mark.parametrize(
    ("host", "dotless"),
    [("backend", True), ("localhost", False), ("backend.local", False), ("10.0.0.5", False), ("::1", False)],
)
def test_which_hosts_get_no_webhook(host: str, dotless: bool) -> None:
    assert is_dotless(host) is dotless


def test_missing_credentials_are_named() -> None:
    assert "not set" in notes()
    assert "no key is set" in notes(label_studio_url="http://localhost:8080")
    assert "LABEL_STUDIO" not in notes(label_studio_url="http://localhost:8080", label_studio_api_key="k")


def test_settings_and_config_that_cannot_work_end_with_a_message() -> None:
    result = CliRunner(env={"PSLG_PORT": "nine"}).invoke(pslg, ["serve"])
    assert result.exit_code == 1
    assert "PSLG_PORT" in str(result.exception)
    result = CliRunner().invoke(pslg, ["serve", "--config", "no-such"])
    assert result.exit_code == 1
    assert "no-such" in str(result.exception)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_two_workers_serve_and_end(tmp_path: Path) -> None:
    port = free_port()
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PSLG_", "LABEL_STUDIO_"))}
    command = [
        sys.executable,
        "-m",
        "backend",
        "serve",
        "--port",
        str(port),
        "--workers",
        "2",
        "--state-dir",
        str(tmp_path),
    ]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        try:
            for _ in range(600):
                try:
                    assert requests.get(f"{url}/health", timeout=5).json()["status"] == "UP"
                    break
                except requests.RequestException:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(0.2)
            assert requests.post(f"{url}/setup", json={"project": "1.2"}, timeout=30).json()["model_version"]
            assert requests.post(f"{url}/webhook", json={"action": "START_TRAINING"}, timeout=30).status_code == 201
            text = requests.get(f"{url}/metrics", timeout=30).text
            assert 'pslg_events_total{action="START_TRAINING"} 1.0' in text  # whichever worker took it
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
