"""A real Label Studio, the backend as a process, and a real browser: each skips with a reason where it is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from backend.demo.backend_process import BackendProcess
from backend.demo.label_studio_client import LabelStudioClient
from backend.demo.label_studio_process import LabelStudioProcess, find_program
from dataset_tools.errors import LabelStudioError
from tests.conftest import REPOSITORY


def missing(what: str, reason: str) -> NoReturn:
    """Skip with ``reason``; fail where ``PSLG_REQUIRE`` (comma separated) says that ``what`` must be there."""
    if what in os.environ.get("PSLG_REQUIRE", "").split(","):
        pytest.fail(f"PSLG_REQUIRE demands {what}: {reason}")
    pytest.skip(reason)


@dataclass(frozen=True)
class Studio:
    """A running Label Studio and its administrator's client."""

    process: LabelStudioProcess
    client: LabelStudioClient

    @property
    def url(self) -> str:
        return self.process.url


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One Label Studio for the whole session; tests make projects of their own in it. It serves the tests' files."""
    try:
        program = find_program()
    except LabelStudioError as error:
        missing("label-studio", str(error))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LOCAL_FILES_SERVING_ENABLED", "true")
        environment.setenv("LOCAL_FILES_DOCUMENT_ROOT", str(tmp_path_factory.getbasetemp()))
        process = LabelStudioProcess(program, tmp_path_factory.mktemp("label-studio"))
    with process:
        process.start()
        with contextlib.closing(LabelStudioClient(process.url, process.token)) as client:
            yield Studio(process, client)


@pytest.fixture(scope="session")
def personal_access_token(studio: Studio) -> str:
    """The administrator's personal access token: Label Studio gives one to a user, and shows it once."""
    return studio.client.personal_access_token()


StartBackend = Callable[..., BackendProcess]


@pytest.fixture
def start_backend(studio: Studio, tmp_path: Path) -> Iterator[StartBackend]:
    """``start_backend(token, port=None, **settings)`` serves the compact config from one state folder until the end."""
    started: list[BackendProcess] = []

    def start(token: str, port: int | None = None, **settings: str) -> BackendProcess:
        process = BackendProcess(tmp_path / "backend", studio.url, token, port=port, settings=settings)
        started.append(process)
        process.start_and_wait()
        return process

    yield start
    for process in started:
        process.stop()


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser: ``PSLG_CHROMIUM``, or a Chromium on PATH."""
    named = os.environ.get("PSLG_CHROMIUM")
    for candidate in [named] if named else ["chromium", "chromium-browser", "google-chrome"]:
        found = shutil.which(candidate)
        if found:
            return Path(found)
    missing("browser", "no Chromium: install Debian's package `chromium`, or name a browser with PSLG_CHROMIUM")


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots are kept: ``runs/end_to_end``, ignored by git."""
    folder = REPOSITORY / "runs" / "end_to_end"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
