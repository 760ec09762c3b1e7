"""A ``pslg serve`` of a benchmark's own: started, waited for, its memory read, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import requests

from benchmarks.cold_click import library_mib

__all__ = ["Server", "free_port"]


class Server:
    """A ``pslg serve`` in a folder of its own."""

    def __init__(self, folder: Path, port: int, *, workers: int, model_threads: int | None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("PSLG_", "LABEL_STUDIO_"))}
        environ |= {"PSLG_STATE_DIR": str(folder), "PSLG_IMAGE_HOSTS": "127.0.0.1", "PSLG_LOG_LEVEL": "WARNING"}
        command = [sys.executable, "-m", "backend", "serve", "--port", str(port), "--workers", str(workers)]
        if model_threads is not None:
            command += ["--model-threads", str(model_threads)]
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(command, env=environ, stdout=self._log, stderr=self._log)

    def wait(self, label_config: str) -> None:
        """Wait until it predicts for a labeling config."""
        until = time.monotonic() + 300
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            try:
                answer = requests.post(
                    f"{self.url}/setup", json={"project": "1.1", "schema": label_config}, timeout=30
                ).json()
                if "unavailable" not in answer["model_version"]:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.3)
        raise SystemExit(f"the server did not start:\n{(self._folder / 'log').read_text()[-3000:]}")

    def memory(self) -> dict[str, float]:
        """Gigabytes of the largest worker: in all, anonymous, and in all less the pages of torch's libraries."""
        found = {"VmRSS": 0, "RssAnon": 0}
        largest = self._process.pid
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            values = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(tuple(found))}
            if values.get("VmRSS", 0) > found["VmRSS"]:
                found, largest = values, pid
        libraries = 0.0
        with suppress(OSError):
            libraries = library_mib(largest) * 1024
        kib = {"rss": found["VmRSS"], "anonymous": found["RssAnon"], "own": found["VmRSS"] - libraries}
        return {f"{name}_gb": round(value * 1024 / 1e9, 3) for name, value in kib.items()}

    def close(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(60)
        self._log.close()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
