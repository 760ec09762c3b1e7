"""The reverse proxy's example, run as it stands but for ports and certificate: TLS, prefix, what Label Studio asks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from pydantic import SecretStr
from werkzeug.serving import make_server

from backend.server.app import create_app
from backend.server.service import LabelingService
from backend.settings import Settings
from tests.conftest import REPOSITORY
from tests.dataset_tools.label_studio.test_client import LEGACY
from tests.server.conftest import Site, batch, make_site, png, task
from tests.server.tiny import tiny_pipeline

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None or shutil.which("openssl") is None,
    reason="needs nginx and openssl (apt-get install nginx-light openssl)",
)
NAME = "label.example.org"
BASIC = urllib3.make_headers(basic_auth="label-studio:swordfish-1")
SECRET = "swordfish-2"


class Proxy:
    """nginx with the shipped configuration: ``ask`` asks it by its name, over TLS, with its certificate checked."""

    def __init__(self, port: int, plain_port: int, certificate: Path) -> None:
        self.port, self.plain_port = port, plain_port
        self._pool = urllib3.HTTPSConnectionPool(
            "127.0.0.1", port, ca_certs=str(certificate), server_hostname=NAME, assert_hostname=NAME, retries=False
        )

    def ask(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        headers = {"Host": f"{NAME}:{self.port}", **more.pop("headers", {})}
        return self._pool.request(method, path, headers=headers, redirect=False, timeout=30, **more)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def label_studio() -> Iterator[Site]:
    yield from make_site()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, label_studio: Site) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("nginx")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    plain_port, port = free_ports(2)
    settings = Settings(
        state_dir=folder / "state",
        image_hosts=("127.0.0.1",),
        model_threads=1,
        label_studio_url=label_studio.url,
        label_studio_api_key=SecretStr(LEGACY),
        basic_auth_user="label-studio",
        basic_auth_password=SecretStr("swordfish-1"),
        webhook_secret=SecretStr(SECRET),
        served_hosts=(NAME,),
    )
    service = LabelingService(settings, tiny_pipeline)
    service.start()
    assert service.model.wait(60)
    backend = make_server("127.0.0.1", 0, create_app(settings, service), threaded=True)
    thread = threading.Thread(target=backend.serve_forever, daemon=True)
    thread.start()

    shipped = (REPOSITORY / "deploy" / "nginx.conf").read_text()
    for was, becomes in (
        ("listen 80;", f"listen 127.0.0.1:{plain_port};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (f"/etc/ssl/certs/{NAME}.pem", str(certificate)),
        (f"/etc/ssl/private/{NAME}.key", str(key)),
        ("http://127.0.0.1:9090/;", f"http://127.0.0.1:{backend.server_port}/;"),
        ("http://127.0.0.1:8080;", f"{label_studio.url};"),
    ):
        assert was in shipped
        shipped = shipped.replace(was, becomes)
    (folder / "pslg.conf").write_text(shipped)
    places = "".join(
        f"{kind}_temp_path {folder / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # its workers must reach the test's folder
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; {user} pid {folder / 'pid'}; error_log stderr warn;"
        f"events {{ worker_connections 64; }} http {{ access_log off; {places} include {folder / 'pslg.conf'}; }}"
    )
    arguments = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with (folder / "log").open("wb") as log, subprocess.Popen(arguments, stderr=log) as process:
        try:
            _wait_for(port, process, folder / "log")
            yield Proxy(port, plain_port, certificate)
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(10)
            backend.shutdown()
            thread.join()
            backend.server_close()
            service.close()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(log.read_text())


def test_without_tls_the_browser_is_sent_to_it(proxy: Proxy) -> None:
    with urllib3.PoolManager() as plain:
        answer = plain.request(
            "GET", f"http://127.0.0.1:{proxy.plain_port}/pslg/?a=1", headers={"Host": NAME}, redirect=False
        )
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{NAME}/pslg/?a=1")


def test_the_backend_is_under_its_prefix_and_wants_its_credentials(proxy: Proxy) -> None:
    assert proxy.ask("GET", "/pslg/health").status == 401
    assert json.loads(proxy.ask("GET", "/pslg/health", headers=BASIC).data)["status"] == "UP"
    assert proxy.ask("GET", "/pslg").headers["Location"].endswith("/pslg/")


def test_links_of_the_page_stay_under_the_prefix(proxy: Proxy) -> None:
    page = proxy.ask("GET", "/pslg/", headers=BASIC)
    assert page.status == 200
    links = re.findall(r'href="([^"]+)"', page.data.decode())
    assert "metrics" in links
    own = [link for link in links if not link.startswith("https://")]
    assert [link for link in own if proxy.ask("GET", f"/pslg/{link}", headers=BASIC).status != 200] == []


def test_everything_else_is_label_studio(proxy: Proxy, label_studio: Site) -> None:
    label_studio.put("/projects/7/data", b"its page")
    assert proxy.ask("GET", "/projects/7/data").data == b"its page"
    (headers,) = [headers for _, path, headers, _ in label_studio.seen if path == "/projects/7/data"]
    assert headers["Host"] == f"{NAME}:{proxy.port}"
    assert headers["X-Forwarded-Proto"] == "https"


def test_a_batch_a_webhook_and_a_body_that_is_too_large(proxy: Proxy, label_studio: Site) -> None:
    url = label_studio.put("/image.png", png())
    answer = proxy.ask("POST", "/pslg/predict", json=batch(task(1, url, "the ship")), headers=BASIC)
    (found,) = json.loads(answer.data)["results"]
    assert found["result"][0]["value"]["brushlabels"] == ["ship"]
    event = {"action": "PROJECT_UPDATED", "project": {"id": 7, "title": "ships"}}
    assert proxy.ask("POST", "/pslg/webhook", json=event).status == 401
    assert proxy.ask("POST", "/pslg/webhook", json=event, headers={"X-Pslg-Secret": SECRET}).status == 201
    length = {**BASIC, "Content-Length": str(65 << 20), "Expect": "100-continue"}
    assert proxy.ask("POST", "/pslg/predict", headers=length, body=b"").status == 413


def test_another_name_is_refused(proxy: Proxy) -> None:
    assert proxy.ask("GET", "/pslg/health", headers={**BASIC, "Host": "evil.example.com"}).status == 421


def test_the_projects_webhook_gets_its_secret_by_the_proxys_name(proxy: Proxy, label_studio: Site) -> None:
    address = f"https://{NAME}:{proxy.port}/pslg"
    label_studio.put("/api/ml?project=7", json.dumps([{"url": address}]).encode())
    hook = {"id": 3, "url": f"{address}/webhook", "headers": {}, "is_active": True, "actions": []}
    label_studio.put("/api/webhooks/?project=7", json.dumps([hook]).encode())
    label_studio.put("/api/webhooks/3/?project=7", b"{}")
    setup = proxy.ask("POST", "/pslg/setup", json={"project": "7.1", "schema": "<View/>"}, headers=BASIC)
    assert setup.status == 200
    until = time.monotonic() + 20
    while not (sent := [body for method, _, _, body in label_studio.seen if method == "PATCH"]):
        assert time.monotonic() < until, "no webhook was changed"
        time.sleep(0.05)
    assert json.loads(sent[0])["headers"] == {"X-Pslg-Secret": SECRET}
