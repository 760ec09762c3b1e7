"""A real Label Studio for the demo and the end-to-end tests: SQLite, loopback only, no outside calls."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from backend.demo.child_process import ChildProcess, free_port
from dataset_tools.errors import LabelStudioError

EMAIL = "demo@example.com"
PASSWORD = "pslg-demo"  # noqa: S105 - shown on the screen; the server listens on the loopback interface only
START_TIMEOUT = 900.0
"""Seconds. The first start runs Django's migrations: 25-46 s on an idle two-core machine."""


def find_program(option: Path | None = None) -> Path:
    """The ``label-studio`` program to run.

    The first of: ``option``, the variable ``PSLG_LABEL_STUDIO``, ``.venv-label-studio`` in the current folder or
    beside the virtual environment that runs this code (where ``make label-studio`` installs it).

    Raises:
        LabelStudioError: there is none; the message says how to install it.
    """
    named = option or (Path(os.environ["PSLG_LABEL_STUDIO"]) if os.environ.get("PSLG_LABEL_STUDIO") else None)
    installed = Path(".venv-label-studio", "bin", "label-studio")
    candidates = [named] if named else [Path.cwd() / installed, Path(sys.prefix).parent / installed]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise LabelStudioError(
        f"No label-studio program at {looked}. Install it with `make label-studio` (a virtual environment of its "
        "own), or name one with --label-studio or PSLG_LABEL_STUDIO."
    )


class LabelStudioProcess(ChildProcess):
    """Label Studio on a free port of 127.0.0.1, as a context manager.

    Args:
        program: the ``label-studio`` executable.
        folder: takes the SQLite database, the uploads and ``label-studio.log``.
        port: TCP port; None picks a free one.

    Attributes:
        url: base address without a slash at the end.
        email, password: the administrator's login.
        token: the administrator's legacy token (legacy tokens are enabled in this instance).
    """

    def __init__(self, program: Path, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.email, self.password = EMAIL, PASSWORD
        self.token = secrets.token_hex(20)
        # fmt: off
        command = [str(program), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(self.port)]
        # fmt: on
        super().__init__("Label Studio", command, folder / "label-studio.log", self._variables(program, os.environ))

    def _variables(self, program: Path, inherited: Mapping[str, str]) -> dict[str, str]:
        # Settings of another Label Studio in the caller's shell must not leak into this one.
        own = {key: value for key, value in inherited.items() if not key.startswith(("LABEL_STUDIO_", "DJANGO_"))}
        return own | {
            "PATH": f"{program.parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.folder.resolve()),
            "LABEL_STUDIO_USERNAME": self.email,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            # Backends on the loopback interface are refused unless both checks are off.
            "SSRF_PROTECTION_ENABLED": "false",
            "ML_BLOCK_LOCAL_IP": "false",
            # Label Studio gives a backend 1 s to connect and 1 s to be healthy; a busy laptop needs more.
            "ML_CONNECTION_TIMEOUT": "10",
            "ML_TIMEOUT_HEALTH": "10",
            "ML_TIMEOUT_SETUP": "20",
            # Nothing leaves the machine.
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def start(self, progress: Callable[[float], None] | None = None, timeout: float = START_TIMEOUT) -> None:
        """Start and wait until the health address answers.

        Raises:
            PslgError: it ended or did not answer in time; the message quotes its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        super().start()
        self.wait_until_up(f"{self.url}/health", timeout, progress)
