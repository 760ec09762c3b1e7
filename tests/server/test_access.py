"""Who may ask for what: Basic, the webhook's secret, the client key, the Host header, and their set-up."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from pydantic import SecretStr

from backend.cli import pslg
from backend.commands.serve import start_notes
from backend.server.access import SECRET_HEADER
from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools.label_studio.client import LabelStudio
from tests.server.conftest import LABEL_CONFIG, Reply, Site, batch
from tests.server.tiny import tiny_pipeline
from tests.test_doctor import run

EVENT = {"action": "ANNOTATION_CREATED", "project": {"id": 1}, "annotation": {"id": 1, "result": []}, "task": {"id": 1}}
TRAINING = {"action": "START_TRAINING", "project": {"id": 1}}
SECRET = {SECRET_HEADER: "webhook-swordfish"}
KEY = {"Authorization": "Bearer client-swordfish"}
LEGACY = "0123456789abcdef0123456789abcdef01234567"


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


BASIC = basic("ls", "basic-swordfish")
WRONG: list[dict[str, str]] = [
    {},
    basic("ls", "basic-swordfis"),
    basic("ls", ""),
    basic("", "basic-swordfish"),
    basic("lś", "basic-swordfish"),
    {"Authorization": "Basic"},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Basic ls:basic-swordfish"},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer basic-swordfish"},
    {"Authorization": "Bearer webhook-swordfish"},
    {"Authorization": "Token client-swordfish"},
    {SECRET_HEADER: ""},
    {SECRET_HEADER: "webhook-swordfish, webhook-swordfish"},
    {SECRET_HEADER: "client-swordfish"},
    {SECRET_HEADER: "w\xe9bhook-swordfish"},
]


def locked(service: LabelingService, settings: Settings, **values: Any) -> FlaskClient:
    wanted = {name: SecretStr(value) if name != "basic_auth_user" else value for name, value in values.items()}
    return create_app(settings.model_copy(update=wanted), service).test_client()


ALL = {
    "basic_auth_user": "ls",
    "basic_auth_password": "basic-swordfish",
    "webhook_secret": "webhook-swordfish",
    "client_key": "client-swordfish",
}


@pytest.mark.parametrize("headers", WRONG)
def test_without_the_right_credentials_nothing_is_answered(
    service: LabelingService, settings: Settings, headers: dict[str, str]
) -> None:
    client = locked(service, settings, **ALL)
    for path in ("/health", "/versions", "/metrics", "/nothing", "//webhook", "/Webhook", "/webhook/"):
        assert client.get(path, headers=headers).status_code in (401, 404, 308), path
        assert b"pslg_" not in client.get(path, headers=headers).data
    for path, body in (
        ("/setup", {"project": "1.2"}),
        ("/predict", batch()),
        ("/webhook", EVENT),
        ("/webhook", TRAINING),
    ):
        assert client.post(path, json=body, headers=headers).status_code == 401, path
    assert service.events.since() == []


def test_each_credential_opens_its_own_doors(service: LabelingService, settings: Settings) -> None:
    client = locked(service, settings, **ALL)

    def status(path: str, body: Any, headers: dict[str, str]) -> int:
        return client.post(path, json=body, headers=headers).status_code

    for headers in (BASIC, KEY):
        assert status("/predict", batch(), headers) == 200
        assert status("/setup", {"project": "1.2"}, headers) == 200
        assert status("/webhook", EVENT, headers) == 201
        assert status("/webhook", TRAINING, headers) == 201
        assert client.get("/metrics", headers=headers).status_code == 200
    assert status("/webhook", EVENT, SECRET) == 201
    for path, body in (("/predict", batch()), ("/setup", {"project": "1.2"}), ("/webhook", TRAINING)):
        assert status(path, body, SECRET) == 401
    assert client.get("/health", headers=SECRET).status_code == 401


def test_events_are_forged_by_nobody_when_only_basic_is_set(service: LabelingService, settings: Settings) -> None:
    client = locked(service, settings, basic_auth_user="ls", basic_auth_password="basic-swordfish")
    for event in (EVENT, {"action": "TASKS_DELETED", "tasks": [{"id": 1}], "project": {"id": 1}}):
        answer = client.post("/webhook", json=event)
        assert answer.status_code == 401
        assert SECRET_HEADER in answer.get_json()["error"]
    assert client.post("/webhook", json=EVENT, headers=BASIC).status_code == 201


def test_with_a_secret_alone_start_training_is_refused_by_name(service: LabelingService, settings: Settings) -> None:
    client = locked(service, settings, webhook_secret="webhook-swordfish")
    for headers in ({}, SECRET):
        answer = client.post("/webhook", json=TRAINING, headers=headers)
        assert answer.status_code == 401
        assert "Start Training" in answer.get_json()["error"]
    assert client.post("/webhook", json=EVENT).status_code == 401
    assert client.post("/webhook", json=EVENT, headers=SECRET).status_code == 201
    assert client.post("/predict", json=batch()).status_code == 200
    notes = start_notes(Settings(webhook_secret=SecretStr("webhook-swordfish")), uses_compact_weights=False)
    assert "Start Training" in "\n".join(notes)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9090", 200),
        ("[::1]:9090", 200),
        ("localhost", 200),
        ("pslg.backend:9090", 200),
        ("PSLG.BACKEND.:9090", 200),
        ("evil.example:9090", 421),
        ("localhost.evil.example", 421),
        ("evil.example#localhost", 421),
        ("localhost@evil.example", 421),
        ("pslg.backend.evil.example", 421),
        ("", 421),
    ],
)
def test_a_foreign_name_that_leads_here_is_not_answered(
    service: LabelingService, settings: Settings, host: str, status: int
) -> None:
    client = create_app(settings.model_copy(update={"served_hosts": ("pslg.backend",)}), service).test_client()
    assert client.get("/health", headers={"Host": host}).status_code == status


def test_the_host_is_looked_at_where_no_credentials_protect(service: LabelingService, settings: Settings) -> None:
    assert (
        create_app(settings, service).test_client().get("/health", headers={"Host": "evil.example"}).status_code == 421
    )
    client = locked(service, settings, client_key="client-swordfish")
    assert client.get("/health", headers={"Host": "evil.example", **KEY}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "backend.local"])  # noqa: S104
def test_an_open_server_does_not_start_where_others_reach_it(tmp_path: Path, host: str) -> None:
    environ: dict[str, str | None] = {"PSLG_STATE_DIR": str(tmp_path), "PSLG_WEBHOOK_SECRET": "webhook-swordfish"}
    result = CliRunner(env=environ).invoke(pslg, ["serve", "--host", host])
    assert result.exit_code == 1
    assert "--allow-anyone" in str(result.exception)
    assert "PSLG_BASIC_AUTH_USER" in str(result.exception)
    # Whoever wants it gets further: to the next thing that is wrong.
    result = CliRunner(env=environ).invoke(pslg, ["serve", "--host", host, "--allow-anyone", "--config", "no-such"])
    assert "no-such" in str(result.exception)
    notes = start_notes(Settings(host=host, allow_anyone=True), uses_compact_weights=False)
    assert "anyone who reaches" in "\n".join(notes)


def webhook_site(site: Site, url: str, headers: dict[str, str], **more: Any) -> list[Any]:
    """A Label Studio whose project 7 has the backend ``url``; what its webhook is changed to."""
    changed: list[Any] = []
    hook = {"id": 3, "url": f"{url}/webhook", "headers": headers, "is_active": True, "actions": [], **more}
    site.put("/api/webhooks/?project=7", json.dumps([{"id": 2, "url": "http://else/webhook"}, hook]).encode())
    site.put(
        "/api/ml?project=7",
        json.dumps([{"id": 1, "url": f"{url}/", "title": "tiny-1", "auth_method": "NONE"}]).encode(),
    )

    def change(_: dict[str, str], body: bytes) -> Reply:
        changed.append(json.loads(body))
        return Reply(b"{}")

    site.replies["/api/webhooks/3/?project=7"] = change
    return changed


@pytest.mark.parametrize("with_secret", [True, False])
def test_the_webhook_of_a_project_gets_its_header(settings: Settings, site: Site, with_secret: bool) -> None:
    changed = webhook_site(site, "http://pslg.backend:9090", {"X-Own": "kept"}, actions=["ANNOTATION_CREATED"])
    values = ALL if with_secret else {name: ALL[name] for name in ("basic_auth_user", "basic_auth_password")}
    wanted = {name: SecretStr(value) if name != "basic_auth_user" else value for name, value in values.items()}
    own = {"label_studio_url": site.url, "label_studio_api_key": SecretStr(LEGACY)}
    service = LabelingService(settings.model_copy(update={**wanted, **own}), tiny_pipeline)
    studio = LabelStudio(site.url, LEGACY)
    for host in ("evil.example:9090", "pslg.backend:80", "pslg.backend", "else"):
        assert not service.connection.set_up(studio, 7, host, "tiny-1")
    assert changed == []
    assert service.connection.set_up(studio, 7, "pslg.backend:9090", "tiny-1")
    assert changed == [
        {"headers": {"X-Own": "kept", **(SECRET if with_secret else BASIC)}, "actions": ["ANNOTATION_CREATED"]}
    ]
    webhook_site(site, "http://pslg.backend:9090", changed[0]["headers"])
    assert service.connection.set_up(studio, 7, "pslg.backend:9090", "tiny-1")
    assert len(changed) == 1
    service.close()


def test_doctor_names_webhooks_that_events_cannot_pass(tmp_path: Path, site: Site) -> None:
    site.put("/api/current-user/whoami", b'{"email": "a@b.co"}')
    config = LABEL_CONFIG
    projects = {"next": None, "results": [{"id": 7, "title": "ships", "label_config": config}]}
    site.put("/api/projects/?page=1&page_size=100", json.dumps(projects).encode())
    own: dict[str, Any] = {
        "LABEL_STUDIO_URL": site.url,
        "LABEL_STUDIO_API_KEY": LEGACY,
        "PSLG_WEBHOOK_SECRET": "webhook-swordfish",
    }
    webhook_site(site, "http://pslg.backend:9090", {}, is_active=False)
    text = run(tmp_path, **own).output
    assert f"does not send {SECRET_HEADER}" in text
    assert "is switched off" in text
    assert "Start Training is refused" in text
    assert "webhook-swordfish" not in text
    webhook_site(site, "http://pslg.backend:9090", SECRET)
    text = run(tmp_path, **own, PSLG_BASIC_AUTH_USER="ls", PSLG_BASIC_AUTH_PASSWORD="swordfish").output
    assert "does not send" not in text
    assert "connected without Basic credentials" in text


@pytest.mark.parametrize(
    "name",
    ["PSLG_BASIC_AUTH_USERNAME", "PSLG_BASIC_AUTH_PASS", "PSLG_BASIC_AUTH", "PSLG_API_KEY", "PSLG_ALLOWED_HOSTS",
     "PSLG_X", "pslg_webhook_secret", "PSLG_WEBHOOKSECRET"],
)  # fmt: skip
def test_a_misspelt_setting_is_refused_at_any_distance(name: str) -> None:
    with pytest.raises(Exception, match=name):
        Settings.load({name: "swordfish-swordfish"})


@pytest.mark.parametrize("name", ["PSLG_DATA", "PSLG_REQUIRE", "PSLG_CHROMIUM", "PSLG_WEIGHTS"])
def test_variables_that_are_no_settings_pass(name: str) -> None:
    Settings.load({name: "x"})


@pytest.mark.parametrize("value", ["short", "with spaces in it", "with\nline", "żółta-łódź"])
def test_a_secret_must_fit_into_a_header(value: str) -> None:
    with pytest.raises(Exception, match="PSLG_WEBHOOK_SECRET") as caught:
        Settings.load({"PSLG_WEBHOOK_SECRET": value})
    assert value not in str(caught.value)
