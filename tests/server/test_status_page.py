"""The page at /: what an operator looks for is on it, and nothing that is secret."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from pydantic import SecretStr

from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from tests.server.conftest import LABEL_CONFIG, Site, batch, png, task
from tests.server.tiny import VERSION, tiny_pipeline


def test_the_page_shows_projects_requests_and_reasons(client, service: LabelingService, site: Site) -> None:  # type: ignore[no-untyped-def]
    assert "None yet" in client.get("/").get_data(as_text=True)
    url = site.put("/secret-image.png", png())
    client.post("/predict", json=batch(task(1, url), task(2, url, "the hidden foobar"), label_config=LABEL_CONFIG))
    event = json.loads((Path(__file__).parents[1] / "data/captures/webhook_PROJECT_UPDATED.json").read_text())
    body = event.get("request_body", event.get("body", event))
    client.post("/webhook", json=body)
    answer = client.get("/")
    assert answer.content_type == "text/html; charset=utf-8"
    text = answer.get_data(as_text=True)
    assert VERSION in text
    assert "1 objects" in text
    assert "unknown-category" in text
    assert body["project"]["title"] in text
    assert "LABEL_STUDIO_URL" in text  # what to fix
    for secret in ("secret-image", "foobar", "<script", "<img", str(body["project"].get("token") or "no token")):
        assert secret not in text


def test_what_the_server_cannot_do_well_is_on_the_page_and_the_docs_can_be_read(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path, model_threads=1, host="192.0.2.1", allow_anyone=True, webhook_secret=SecretStr("hush-hush")
    )
    service = LabelingService(settings, tiny_pipeline)
    try:
        client = create_app(settings, service).test_client()
        text = client.get("/").get_data(as_text=True)
        assert "anyone who reaches 192.0.2.1:9090 can use the server" in text
        assert "Start Training is refused" in text
        links = re.findall(r'href="([^"]+)"', text)
        assert "docs/operations.md" in links
        for link in links:
            assert client.get(f"/{link}").status_code == 200, link
        page = client.get("/docs/settings.md")
        assert page.content_type == "text/plain; charset=utf-8"
        assert page.get_data(as_text=True).startswith("# Settings of the server")
        for outside in ("README.md", "..%2FREADME.md", "%2Fetc%2Fpasswd", "none.md"):
            assert client.get(f"/docs/{outside}").status_code == 404
    finally:
        service.close()


def test_the_page_needs_the_same_credentials(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path, model_threads=1, basic_auth_user="ls", basic_auth_password=SecretStr("hush-hush")
    )
    service = LabelingService(settings, tiny_pipeline)
    try:
        client = create_app(settings, service).test_client()
        assert client.get("/").status_code == 401
        header = {"Authorization": "Basic " + base64.b64encode(b"ls:hush-hush").decode()}
        answer = client.get("/", headers=header)
        assert answer.status_code == 200
        assert "hush-hush" not in answer.get_data(as_text=True)
    finally:
        service.close()
