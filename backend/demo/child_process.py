"""Server processes that this project starts for itself: waited for, logged to a file, ended with all their children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from dataset_tools.errors import PslgError

LOG_LINES = 15
"""How many lines of its log an error about a failed process quotes."""


def free_port() -> int:
    """A TCP port that is free on the loopback interface now (another process may still take it first)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ChildProcess:
    """A server in a process group of its own, from ``start`` to ``stop``.

    Args:
        name: what messages call it.
        command: program and arguments.
        log: file that takes stdout and stderr (appended to).
        environment: the whole environment of the process.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process.

        Raises:
            PslgError: the program cannot be executed.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            try:
                # A session of its own: workers that the server forks are ended with it, and a Ctrl-C in the
                # terminal reaches only this program, which then stops its servers in order.
                self._process = subprocess.Popen(
                    self.command,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise PslgError(f"{self.name} cannot be started: {self.command[0]}: {error.strerror}") from error

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_until_up(
        self,
        url: str,
        timeout: float,
        progress: Callable[[float], None] | None = None,
        is_up: Callable[[requests.Response], bool] = lambda response: response.ok,
    ) -> None:
        """Return once ``GET url`` gives an answer that says the server is up.

        Args:
            url: health address of the server.
            timeout: seconds to wait at most.
            progress: called about twice a second with the seconds waited so far.
            is_up: looks at an answer; may raise to give up at once.

        Raises:
            PslgError: the process ended or the time is over; the message quotes the end of its log.
        """
        began = time.monotonic()
        with requests.Session() as session:
            session.trust_env = False  # a proxy must not stand between two servers of one machine
            while True:
                waited = time.monotonic() - began
                if progress is not None:
                    progress(waited)
                with contextlib.suppress(requests.RequestException):
                    if is_up(session.get(url, timeout=2)):
                        return
                if self._process is None or self._process.poll() is not None:
                    status = None if self._process is None else self._process.returncode
                    raise PslgError(f"{self.name} ended with status {status} while starting.\n{self._log_tail()}")
                if waited > timeout:
                    raise PslgError(f"{self.name} did not answer {url} within {timeout:.0f} s.\n{self._log_tail()}")
                time.sleep(0.5)

    def stop(self, patience: float = 10.0) -> None:
        """End the process group: SIGTERM, after ``patience`` seconds SIGKILL. Harmless when it has ended already."""
        process, self._process = self._process, None
        if process is None:
            return
        self._signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        self._process = process
        self.kill()  # also after a clean end: what the server forked may still be there

    def kill(self) -> None:
        """End the process group by SIGKILL: nothing in it can tidy up. Harmless when it has ended already."""
        process, self._process = self._process, None
        if process is not None:
            self._signal(process.pid, signal.SIGKILL)
            process.wait()

    def _signal(self, group: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:] if self.log.is_file() else []
        return "\n".join([f"The end of {self.log}:", *(f"  {line}" for line in lines or ["(empty)"])])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
