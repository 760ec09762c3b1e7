"""The name of the connection in Label Studio: without it the Data Manager's score column stays empty."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import pytest

from backend.server import connection
from backend.server.connection import ConnectionSetup
from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio
from tests.server.conftest import Reply, Site

TOKEN = "0123456789abcdef0123456789abcdef01234567"
HOST = "pslg.backend:9090"


class Project:
    """Project 7 of a Label Studio with two connections; renaming one does there what Label Studio does."""

    def __init__(self, site: Site, chosen: str | None = "PSLG-SAM", **row: Any) -> None:
        self.chosen = chosen
        self.rows = [
            {"id": 1, "url": f"http://{HOST}/", "title": "PSLG-SAM", "auth_method": "NONE", **row},
            {"id": 2, "url": "http://else:9090", "title": "PSLG-SAM", "auth_method": "NONE"},
        ]
        self.sent: list[Any] = []
        site.replies["/api/ml?project=7"] = lambda *_: Reply(json.dumps(self.rows).encode())
        site.replies["/api/ml/1"] = self._rename
        site.replies["/api/projects/7/"] = self._project

    def _rename(self, _: dict[str, str], body: bytes) -> Reply:
        self.sent.append(json.loads(body))
        self.rows[0]["title"] = self.sent[-1]["title"]
        return Reply(b"{}")

    def _project(self, _: dict[str, str], body: bytes) -> Reply:
        if body:
            self.chosen = json.loads(body)["model_version"]
        return Reply(json.dumps({"id": 7, "model_version": self.chosen}).encode())


def test_a_connection_is_named_after_the_version_and_the_project_follows(site: Site) -> None:
    project = Project(site)
    setup, studio = ConnectionSetup(None, {}), LabelStudio(site.url, TOKEN)
    former: set[str] = set()
    assert not setup.set_up(studio, 7, HOST, "compact-1", former), "it looks again: Label Studio may not be done"
    assert [row["title"] for row in project.rows] == ["compact-1", "PSLG-SAM"]
    assert project.chosen == "compact-1"
    project.chosen = "PSLG-SAM"  # Label Studio's own last write of a new connection
    assert not setup.set_up(studio, 7, HOST, "compact-1", former)
    assert project.chosen == "compact-1"
    assert setup.set_up(studio, 7, HOST, "compact-1", former)
    assert len(project.sent) == 1
    # After a promotion.
    assert not setup.set_up(studio, 7, HOST, "compact-2")
    assert (project.rows[0]["title"], project.chosen) == ("compact-2", "compact-2")


def test_a_model_that_somebody_chose_stays_chosen(site: Site) -> None:
    for chosen in ("predictions of mine", None):
        project = Project(site, chosen)
        ConnectionSetup(None, {}).set_up(LabelStudio(site.url, TOKEN), 7, HOST, "compact-1")
        assert project.chosen == chosen


def test_the_connections_credentials_stay(site: Site) -> None:
    project = Project(site, auth_method="BASIC_AUTH", basic_auth_user="ls")
    ConnectionSetup(None, {}).set_up(LabelStudio(site.url, TOKEN), 7, HOST, "compact-1")
    (sent,) = project.sent
    assert (sent["auth_method"], sent["basic_auth_user"], sent["basic_auth_pass"]) == ("BASIC_AUTH", "ls", "")


def test_nothing_is_named_after_no_model_at_other_addresses_or_when_it_is_switched_off(site: Site) -> None:
    project = Project(site)
    studio = LabelStudio(site.url, TOKEN)
    ConnectionSetup(None, {}).set_up(studio, 7, HOST, "compact-unavailable")
    ConnectionSetup(None, {}).set_up(studio, 7, "evil.example:9090", "compact-1")
    ConnectionSetup(None, {}, named=False).set_up(studio, 7, HOST, "compact-1")
    assert project.sent == []


def test_being_asked_names_it_in_the_background(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(site)
    monkeypatch.setattr(connection, "_LOOKS", (0.0, 0.0, 0.0))
    setup = ConnectionSetup(LabelStudio(site.url, TOKEN), {})

    def asked(*versions: str) -> None:
        for version in versions:
            setup.asked(7, HOST, version)
        for thread in threading.enumerate():
            if thread.name == "connection":
                thread.join(60)

    asked("compact-1")
    assert project.chosen == "compact-1"
    setup.asked(None, HOST, "compact-1")
    asked("compact-1", "compact-1")
    assert len(project.sent) == 1
    asked("compact-2")
    assert project.chosen == "compact-2"

    def refuse(*_: Any) -> Reply:
        raise LabelStudioError("403: you may not")

    monkeypatch.setattr(LabelStudio, "rename_backend", refuse)
    with caplog.at_level(logging.WARNING):
        asked("compact-3")
    assert "403: you may not" in caplog.text
    assert "pslg doctor" in caplog.text


def test_versions_that_follow_one_another_quickly_leave_the_newest(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lessons change the version with every accepted object, and a promotion comes on top: all looks are under way."""
    project = Project(site)
    monkeypatch.setattr(connection, "_LOOKS", (0.3, 0.1, 0.1))
    setup = ConnectionSetup(LabelStudio(site.url, TOKEN), {})
    versions = [*(f"compact-1.like-{number}" for number in range(6)), "compact-2"]
    for version in versions:
        setup.asked(7, HOST, version)
    for thread in threading.enumerate():
        if thread.name == "connection":
            thread.join(60)
    assert (project.rows[0]["title"], project.chosen) == ("compact-2", "compact-2")
    assert [sent["title"] for sent in project.sent] == ["compact-2"]
