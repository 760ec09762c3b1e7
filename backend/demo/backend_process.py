"""``pslg serve`` as a process of its own, connected to one Label Studio."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import requests

from backend.demo.child_process import ChildProcess, free_port

START_TIMEOUT = 600.0
"""Seconds. Loading takes about ten on an idle two-core machine."""


class BackendProcess(ChildProcess):
    """The ML backend on a free port of 127.0.0.1.

    Args:
        folder: takes its state (events, pre-labels, embeddings) and ``backend.log``.
        label_studio_url: where it fetches images and pushes late predictions.
        api_key: a personal access token or a legacy token of that Label Studio.
        config: pipeline config to serve.
        port: TCP port; None picks a free one.
        settings: further variables of the server.

    Attributes:
        url: base address, to be connected in Label Studio.
    """

    def __init__(
        self,
        folder: Path,
        label_studio_url: str,
        api_key: str,
        config: str = "compact",
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # Settings of another backend in the caller's shell must not leak into this one.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PSLG_", "LABEL_STUDIO_"))}
        environment = inherited | {
            "LABEL_STUDIO_URL": label_studio_url,
            "LABEL_STUDIO_API_KEY": api_key,
            "PSLG_STATE_DIR": str(folder.resolve()),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **(settings or {}),
        }
        # fmt: off
        command = [
            sys.executable, "-m", "backend", "serve",
            "--config", config, "--host", "127.0.0.1", "--port", str(self.port),
        ]
        # fmt: on
        super().__init__("The ML backend", command, folder / "backend.log", environment)

    def start_and_wait(self, progress: Callable[[float], None] | None = None) -> None:
        """Start and wait until the models are loaded (the server is up before that).

        Raises:
            PslgError: it ended or was not ready in time; the message quotes its log.
        """
        self.start()
        self.wait_until_up(f"{self.url}/health", START_TIMEOUT, progress, _is_ready)


def _is_ready(response: requests.Response) -> bool:
    return response.ok and "problem" not in response.json()
