"""Servers that the demo and the tests start must come up with their log at hand and go down with their children."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from backend.demo.child_process import ChildProcess, free_port
from dataset_tools.errors import PslgError

SERVER = "import sys, http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]))"


def _child(log: Path, *arguments: str) -> ChildProcess:
    return ChildProcess("The server", [sys.executable, "-c", *arguments], log, dict(os.environ))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_started_server_is_waited_for_and_stopped(tmp_path: Path) -> None:
    port = free_port()
    waited: list[float] = []
    with _child(tmp_path / "log", SERVER, str(port)) as child:
        child.start()
        child.wait_until_up(f"http://127.0.0.1:{port}/", 60, waited.append)
        assert child.running
    assert waited[0] < 1
    assert not child.running


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to look at processes")
def test_stopping_ends_grandchildren_that_ignore_sigterm(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "stubborn = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True);"
        " time.sleep(600)'\n"
        "child = subprocess.Popen([sys.executable, '-c', stubborn], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    log = tmp_path / "log"
    child = _child(log, program)
    child.start()
    while not log.read_text().endswith("\n"):
        time.sleep(0.05)
    grandchild = int(log.read_text())
    assert _alive(grandchild)
    child.stop()
    while _alive(grandchild):  # a test that hangs here fails by pytest's timeout
        time.sleep(0.05)


def test_a_server_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with _child(tmp_path / "log", "raise SystemExit('port taken by a badger')") as child:
        child.start()
        with pytest.raises(PslgError, match=r"The server ended with status 1 while starting(.|\n)*taken by a badger"):
            child.wait_until_up(f"http://127.0.0.1:{free_port()}/", 60)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with _child(tmp_path / "log", "import time; time.sleep(600)") as child:
        child.start()
        with pytest.raises(PslgError, match="did not answer"):
            child.wait_until_up(f"http://127.0.0.1:{free_port()}/", 0.6)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    child = ChildProcess("Label Studio", [str(tmp_path / "nothing")], tmp_path / "log", {})
    with pytest.raises(PslgError, match=r"Label Studio cannot be started: .*nothing: No such file"):
        child.start()
