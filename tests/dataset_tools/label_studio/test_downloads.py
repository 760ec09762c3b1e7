"""Nothing that a task says makes the token go anywhere but to Label Studio's own files."""

from __future__ import annotations

import base64
import contextlib
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from dataset_tools.errors import ImageError, LabelStudioError
from dataset_tools.label_studio.addresses import Route
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.downloads import Downloads, read_body
from tests.dataset_tools.label_studio.test_client import LEGACY
from tests.server.conftest import Reply, Site

FORMS = {
    "backslash": "http://{evil}\\@{studio}/x.png",
    "two backslashes": "http:\\\\{evil}/x.png",
    "user name": "http://{studio}@{evil}/x.png",
    "no scheme": "//{evil}/x.png",
    "path that becomes a host": "/\\{evil}/x.png",
    "@ in a path": "@{evil}/x.png",
    "tab": "\t//{evil}/x.png",
    "newline": "/\n/{evil}/x.png",
    "one slash": "http:/{evil}/x.png",
    "question mark": "http://{evil}?@{studio}/data/x.png",
    "number sign": "http://{evil}#@{studio}/data/x.png",
    "plain": "http://{evil}/data/x.png",
    "capitals": "HTTP://{evil}/data/x.png",
}


def place(site: Site) -> str:
    return site.url.removeprefix("http://")


def fetch(downloads: Downloads, url: str, task: int | str | None = 1) -> bytes:
    with downloads.open(url, task) as response:
        return read_body(response, 1000, 10, "a test")


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_an_address_sends_the_token_to_another_host(form: str, site: Site, other_site: Site) -> None:
    for path in ("/x.png", "/data/x.png", "/"):
        other_site.put(path, b"evil")
    downloads = Downloads(LabelStudio(site.url, LEGACY))
    with contextlib.suppress(ImageError):
        fetch(downloads, FORMS[form].format(evil=place(other_site), studio=place(site)))
    assert all("Authorization" not in headers for _, _, headers, _ in other_site.seen)


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_a_redirect_does(form: str, site: Site, other_site: Site) -> None:
    for path in ("/x.png", "/data/x.png", "/"):
        other_site.put(path, b"evil")
    location = FORMS[form].format(evil=place(other_site), studio=place(site)).replace("\n", "%0A").replace("\t", "%09")
    site.replies["/data/a.png"] = Reply(status=302, headers={"Location": location})
    downloads = Downloads(LabelStudio(site.url, LEGACY))
    with contextlib.suppress(ImageError):
        fetch(downloads, "/data/a.png")
    assert "Authorization" in site.seen[0][2]
    assert all("Authorization" not in headers for _, _, headers, _ in other_site.seen)


@pytest.mark.parametrize(
    "path",
    [
        "/api/projects/99/export",
        "/data/../api/projects/99/export",
        "/data/%2e%2e/api/tasks/1/",
        "/storage-data/..%2fapi",
    ],
)
def test_a_task_cannot_make_us_call_the_api(site: Site, path: str) -> None:
    downloads = Downloads(LabelStudio(site.url, LEGACY))
    for url in (path, site.url + path):
        with pytest.raises(ImageError):
            fetch(downloads, url)
    assert all("Authorization" not in headers for _, _, headers, _ in site.seen)


def test_a_redirect_into_the_api_goes_without_the_token(site: Site) -> None:
    site.replies["/data/a.png"] = Reply(status=302, headers={"Location": "/api/projects/99/export"})
    site.put("/api/projects/99/export", b"[]")
    fetch(Downloads(LabelStudio(site.url, LEGACY)), "/data/a.png")
    assert ["Authorization" in headers for _, _, headers, _ in site.seen] == [True, False]


def test_a_redirect_within_the_files_keeps_it(site: Site) -> None:
    site.replies["/storage-data/uploaded/?filepath=a.png"] = Reply(status=302, headers={"Location": "/data/a.png"})
    site.put("/data/a.png", b"image")
    assert fetch(Downloads(LabelStudio(site.url, LEGACY)), "/storage-data/uploaded/?filepath=a.png") == b"image"
    assert ["Authorization" in headers for _, _, headers, _ in site.seen] == [True, True]


@pytest.mark.parametrize(
    "task", ["../../api/projects/5/export?x=", "..", "5/../6", "%2e%2e", "5#", "５", "", "1" * 30, None]
)
def test_a_tasks_id_does_not_change_the_path(site: Site, task: str | None) -> None:
    with pytest.raises(ImageError):
        fetch(Downloads(LabelStudio(site.url, LEGACY)), "s3://bucket/a.png", task)
    assert site.seen == []
    if task is not None:
        studio = LabelStudio(site.url, LEGACY)
        for call in (studio.task, lambda t: studio.has_prediction(t, "v"), lambda t: studio.set_task_data(t, {})):
            with pytest.raises(LabelStudioError, match="not the id of a task"):
                call(task)
    assert site.seen == []


@pytest.mark.parametrize("path", ["/data/upload/1/a.png", "/ls/data/upload/1/a.png", "/storage-data/x.png"])
def test_a_path_in_front_of_label_studio_is_kept(site: Site, path: str) -> None:
    there = path if path.startswith("/ls/") else f"/ls{path}"  # Label Studio itself writes /ls/data/...
    site.put(there, b"image")
    site.put("/ls/api/current-user/whoami", b'{"id": 1}')
    studio = LabelStudio(f"{site.url}/ls/", LEGACY)
    studio.whoami()
    assert fetch(Downloads(studio), path) == b"image"
    assert [(seen, "Authorization" in headers) for _, seen, headers, _ in site.seen] == [
        ("/ls/api/current-user/whoami", True),
        (there, True),
    ]
    uri = base64.urlsafe_b64encode(b"gs://b/a.png").decode()
    site.put(f"/ls/tasks/7/presign/?fileuri={uri}", b"stored")
    assert fetch(Downloads(studio), "gs://b/a.png", 7) == b"stored"


def test_no_netrc_and_no_proxy_of_the_environment_has_a_say(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    site.put("/data/a.png", b"image")
    site.put("/api/current-user/whoami", b'{"id": 1}')
    studio = LabelStudio(site.url, LEGACY)
    studio.whoami()
    fetch(Downloads(studio), "/data/a.png")
    assert [headers["Authorization"] for _, _, headers, _ in site.seen] == [f"Token {LEGACY}"] * 2


def test_the_proxy_of_the_settings_is_used(site: Site, other_site: Site) -> None:
    """``other_site`` is the proxy: it gets whole addresses."""
    other_site.put(f"{site.url}/data/a.png", b"by proxy")
    other_site.replies[f"{site.url}/data/a.png"] = Reply(b"by proxy")
    studio = LabelStudio(site.url, LEGACY, route=Route(proxy=other_site.url))
    assert fetch(Downloads(studio), "/data/a.png") == b"by proxy"
    site.put("/data/a.png", b"direct")
    direct = LabelStudio(site.url, LEGACY, route=Route(proxy=other_site.url, no_proxy=("127.0.0.*",)))
    assert fetch(Downloads(direct), "/data/a.png") == b"direct"


def test_api_calls_do_not_follow_redirects(site: Site, other_site: Site) -> None:
    site.replies["/api/current-user/whoami"] = Reply(status=301, headers={"Location": f"{other_site.url}/x?y=secret"})
    with pytest.raises(LabelStudioError, match=rf"redirects .* to {other_site.url}/x;.*LABEL_STUDIO_URL") as caught:
        LabelStudio(site.url, LEGACY).whoami()
    assert "secret" not in str(caught.value)
    assert other_site.seen == []


def test_a_page_in_place_of_the_api_is_explained(site: Site) -> None:
    site.put("/api/current-user/whoami", b"<html>Welcome</html>")
    site.replies["/api/tasks/3/"] = Reply(b"<html>no such page</html>", 404)
    studio = LabelStudio(site.url, LEGACY)
    with pytest.raises(LabelStudioError, match=r"<html>Welcome.*LABEL_STUDIO_URL"):
        studio.whoami()
    with pytest.raises(LabelStudioError, match="404"):  # of a proxy: it does not say that the task is gone
        studio.task(3)
    site.replies["/api/tasks/3/"] = Reply(b'{"detail": "Not found."}', 404)
    assert studio.task(3) is None


@pytest.mark.parametrize("token", ["", " ", "a\nb", "tok en\r\n", "tökén"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(LabelStudioError, match="token"):
        LabelStudio("http://ls.example.org", token)


def test_what_is_connected_to_is_what_was_looked_at(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that is sent is, to the letter, the one that was checked."""
    sent: list[str] = []
    send = requests.Session.send

    def seen(self: requests.Session, request: requests.PreparedRequest, **kwargs: object) -> requests.Response:
        sent.append(str(request.url))
        return send(self, request, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(requests.Session, "send", seen)
    site.put("/data/a%20%C3%A4.png?x=%2F", b"image")
    downloads = Downloads(LabelStudio(site.url, LEGACY))
    fetch(downloads, "/data/a ä.png?x=%2F")
    assert sent == [downloads.address("/data/a ä.png?x=%2F")]


@pytest.fixture
def own_authority(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that no usual authority has signed, with its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl")
    words = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out ca.pem -days 2 -subj /CN=test"
    words += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([program, *words.split()], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "ca.pem"


def test_a_certificate_authority_of_ones_own_is_trusted_when_it_is_named(own_authority: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "9")
            self.end_headers()
            self.wfile.write(b'{"id": 1}')

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_authority, own_authority.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    url = f"https://127.0.0.1:{server.server_address[1]}"
    try:
        studio = LabelStudio(url, LEGACY, route=Route(own_authority))
        assert studio.whoami() == {"id": 1}
        assert fetch(Downloads(studio), "/data/a.png") == b'{"id": 1}'
        unknown = LabelStudio(url, LEGACY)
        with pytest.raises(LabelStudioError, match="PSLG_CA_BUNDLE"):
            unknown.whoami()
        with pytest.raises(ImageError, match="PSLG_CA_BUNDLE"):
            fetch(Downloads(unknown), "/data/a.png")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
