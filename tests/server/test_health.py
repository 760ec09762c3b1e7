"""The container's health check: the server is asked with its own credentials."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from werkzeug.serving import make_server

from backend.health import problem
from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings

BASIC = {"basic_auth_user": "ls", "basic_auth_password": SecretStr("basic-swordfish")}
KEY = {"client_key": SecretStr("client-swordfish")}


@contextmanager
def served(service: LabelingService, settings: Settings) -> Iterator[int]:
    server = make_server("127.0.0.1", 0, create_app(settings, service))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("credentials", [{}, BASIC, KEY, {**BASIC, **KEY}], ids=["open", "basic", "key", "both"])
def test_a_server_that_wants_credentials_is_well(
    service: LabelingService, settings: Settings, credentials: dict[str, object]
) -> None:
    wanted = settings.model_copy(update=credentials)
    with served(service, wanted) as port:
        everywhere = wanted.model_copy(update={"port": port, "host": "0.0.0.0"})  # noqa: S104 - only asked
        assert problem(everywhere) is None


def test_what_is_wrong_is_said(service: LabelingService, settings: Settings) -> None:
    with served(service, settings.model_copy(update=BASIC)) as port:
        found = problem(settings.model_copy(update={"port": port}))
    assert found is not None
    assert found.endswith("/health answers 401")
    gone = problem(settings.model_copy(update={"port": port}))
    assert gone is not None
    assert "does not answer" in gone
