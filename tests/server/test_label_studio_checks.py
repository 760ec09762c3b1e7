"""What `pslg doctor` finds in Label Studio and at the backend's address, each by name."""

from __future__ import annotations

import base64
import json
import re
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backend.labeling_configs import read_labeling_config
from backend.server.label_studio_checks import backend_checks, label_studio_checks
from backend.settings import Settings
from tests.dataset_tools.label_studio.test_client import LEGACY
from tests.server.conftest import Reply, Site

WHOAMI = "/api/current-user/whoami"


def connect(site: Site, backend: dict[str, Any], project: dict[str, Any] | None = None) -> None:
    """A Label Studio whose project 7 has this backend."""
    site.put(WHOAMI, b'{"email": "a@b.co"}')
    found = {"id": 7, "title": "ships", "label_config": read_labeling_config("buildings"), **(project or {})}
    site.put("/api/projects/?page=1&page_size=100", json.dumps({"next": None, "results": [found]}).encode())
    row = {"url": "http://b.local:9090", "is_interactive": True, "state": "CO", **backend}
    site.put("/api/ml?project=7", json.dumps([row]).encode())
    site.put("/api/webhooks/?project=7", b'[{"id": 3, "url": "http://b.local:9090/webhook", "is_active": true}]')


def findings(site: Site, tmp_path: Path) -> dict[str, str]:
    """Level by text, of what is not in order."""
    settings = Settings(state_dir=tmp_path, label_studio_url=site.url, label_studio_api_key=SecretStr(LEGACY))
    checks = label_studio_checks(settings, {"building"})
    return {check.text: check.level for check in checks if check.level != "ok"}


def test_a_project_in_order_has_no_finding(tmp_path: Path, site: Site) -> None:
    connect(site, {})
    assert findings(site, tmp_path) == {}


def test_a_backend_that_is_down_is_named(tmp_path: Path, site: Site) -> None:
    for message, shown in ((None, "it does not answer /health"), ("Connection refused", "Connection refused")):
        connect(site, {"state": "DI", "error_message": message})
        ((text, level),) = findings(site, tmp_path).items()
        assert level == "problem"
        assert text.startswith("project 7 (ships): backend http://b.local:9090 is down, or not to be reached")
        assert shown in text


def test_an_empty_score_column_is_named(tmp_path: Path, site: Site) -> None:
    connect(site, {"model_version": "compact-1a2b3c4d"}, {"model_version": "My backend"})
    (text,) = findings(site, tmp_path)
    assert re.search(r"column Prediction score is empty.* 'My backend', the backend's are of compact-1a2b3c4d", text)
    for shown in ("compact-1a2b3c4d", "", None):
        connect(site, {"model_version": "compact-1a2b3c4d"}, {"model_version": shown})
        assert findings(site, tmp_path) == {}


@pytest.mark.parametrize(("seconds", "said"), [(-7200, "behind"), (7200, "ahead of"), (0, None)])
def test_clocks_that_are_apart_are_named(tmp_path: Path, site: Site, seconds: int, said: str | None) -> None:
    connect(site, {})
    date = formatdate(time.time() + seconds, usegmt=True)
    site.replies[WHOAMI] = Reply(b'{"email": "a@b.co"}', headers={"Date": date})
    found = findings(site, tmp_path)
    if said is None:
        assert found == {}
    else:
        ((text, level),) = found.items()
        assert level == "problem"
        assert re.match(rf"the clocks are apart: Label Studio's is 7,(19|20)\d s {said} this machine's", text)


def probe(site: Site, tmp_path: Path, **credentials: Any) -> list[str]:
    return [
        f"{check.level} {check.text}" for check in backend_checks(site.url, Settings(state_dir=tmp_path, **credentials))
    ]


def test_its_own_probe_shows_the_credentials(tmp_path: Path, site: Site) -> None:
    """Basic credentials that the server wants are no fault of the server."""

    def guarded(headers: dict[str, str], _: bytes) -> Reply:
        right = headers.get("Authorization") == "Basic " + base64.b64encode(b"ls:swordfish").decode()
        return Reply(b'{"status": "UP", "model_version": "compact-1a2b3c4d"}') if right else Reply(b"no", 401)

    site.replies["/health"] = site.replies["/setup"] = guarded
    right = {"basic_auth_user": "ls", "basic_auth_password": SecretStr("swordfish")}
    assert [line.split()[0] for line in probe(site, tmp_path, **right)] == ["ok", "ok"]
    wrong = probe(site, tmp_path, **{**right, "basic_auth_password": SecretStr("another")})
    assert all(
        re.match(r"problem .*: status 401: it, or a proxy before it, wants other credentials", line) for line in wrong
    )
    assert "another" not in str(wrong)
    assert all("these settings have none" in line for line in probe(site, tmp_path))
