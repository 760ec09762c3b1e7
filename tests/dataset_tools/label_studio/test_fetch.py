"""Fetching a project: token kinds, paging, going on after an interruption, images, and where the token goes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from dataset_tools import brush_rle
from dataset_tools.errors import DatasetError, LabelStudioError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.fetch import fetch_images, fetch_tasks, fetched_tasks
from dataset_tools.label_studio.import_rules import ImportRules, Problem
from dataset_tools.sources import open_source
from tests.dataset_tools.label_studio.test_client import jwt

PERSONAL = jwt("refresh")


class StandIn(ThreadingHTTPServer):
    """What Label Studio 1.23 answers (captures/auth_matrix.json): personal tokens must be exchanged."""

    def __init__(self, tasks: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        mask = np.zeros((20, 30), bool)
        mask[3:9, 4:12] = True
        result = {
            "id": "a", "type": "brushlabels", "original_width": 30, "original_height": 20, "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": ["ship"]},
        }  # fmt: skip
        self.tasks: list[dict[str, Any]] = [
            {
                "id": k,
                "data": {"image": f"/data/upload/1/0123abcd-{k}.png", "expression": "the ship"},
                "annotations": [{"id": k, "result": [result], "was_cancelled": False}],
            }
            for k in range(tasks)
        ]
        self.unlisted: list[dict[str, Any]] = []  # tasks that exist, but slipped from one page to another
        self.pages: list[int] = []
        self.authorizations: list[tuple[str, str | None]] = []
        self.exchanges = 0
        self.fail_at_page: int | None = None
        self.expired = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def access(self) -> str:
        return f"access-{self.exchanges}"


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *_args: object) -> None:
        pass

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/api/token/refresh/"
        self.server.exchanges += 1
        good = body == {"refresh": PERSONAL}
        body = {"access": self.server.access} if good else {"detail": "bad"}
        self.answer(200 if good else 401, json.dumps(body).encode())

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        header = self.headers.get("Authorization")
        self.server.authorizations.append((path, header))
        if path == "/bucket":
            self.answer(200, f"presigned {query['uri'][0]}".encode())
            return
        if path == "/public.png":
            self.answer(200, b"public image")
            return
        current = f"Bearer {self.server.access}"
        if header != current or (self.server.expired and self.server.exchanges == 1):
            self.answer(401, b'{"detail": "legacy token authentication has been disabled"}')
        elif path == "/api/tasks/":
            page, size = int(query["page"][0]), int(query["page_size"][0])
            self.server.pages.append(page)
            if page == self.server.fail_at_page:
                self.answer(500, b"out of order")
                return
            tasks = self.server.tasks[(page - 1) * size : page * size]
            self.answer(200, json.dumps({"tasks": tasks, "total": len(self.server.tasks)}).encode())
        elif path.startswith("/api/projects/"):
            self.answer(200, json.dumps({"id": int(path.split("/")[3]), "title": "Ships"}).encode())
        elif path.startswith("/api/tasks/"):
            found = [task for task in self.server.unlisted if f"/api/tasks/{task['id']}/" == path]
            self.answer(*((200, json.dumps(found[0]).encode()) if found else (404, b'{"detail": "not found"}')))
        elif path == "/tasks/0/presign/":
            uri = base64.urlsafe_b64decode(query["fileuri"][0]).decode()
            self.send_response(303)
            self.send_header("Location", f"/bucket?uri={uri}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/data/upload/"):
            self.answer(200, b"image of " + path.encode())
        else:
            self.answer(404, b'{"detail": "not found"}')


@pytest.fixture
def server() -> Iterator[StandIn]:
    standin = StandIn(7)
    thread = threading.Thread(target=standin.serve_forever, daemon=True)
    thread.start()
    yield standin
    standin.shutdown()
    standin.server_close()
    thread.join()


def test_all_pages_and_images_arrive_and_become_samples(server: StandIn, tmp_path: Path) -> None:
    client = LabelStudio(server.url, PERSONAL)
    fetch_tasks(client, 1, tmp_path, page_size=3)
    assert server.pages == [1, 2, 3]
    assert [task["id"] for task in fetched_tasks(tmp_path)] == list(range(7))
    problems: list[Problem] = []
    fetch_images(client, tmp_path, None, problems)
    samples = list(open_source(tmp_path, None, ImportRules(), problems)())
    assert problems == []
    assert [sample.image.file_name for sample in samples] == [f"{k}.png" for k in range(7)]
    assert Path(str(samples[2].image.location)).read_bytes() == b"image of /data/upload/1/0123abcd-2.png"


def test_an_interrupted_fetch_goes_on_where_it_stopped(server: StandIn, tmp_path: Path) -> None:
    server.fail_at_page = 3
    client = LabelStudio(server.url, PERSONAL)
    with pytest.raises(LabelStudioError, match=r"/api/tasks/.*: 500"):
        fetch_tasks(client, 1, tmp_path, page_size=3)
    with pytest.raises(DatasetError, match="no complete fetch"):
        list(fetched_tasks(tmp_path))
    server.fail_at_page = None
    server.pages.clear()
    with pytest.raises(DatasetError, match="unfinished fetch"):
        fetch_tasks(client, 2, tmp_path, page_size=3)
    fetch_tasks(client, 1, tmp_path, page_size=3)
    assert server.pages == [3]
    assert len(list(fetched_tasks(tmp_path))) == 7
    server.tasks = server.tasks[:2]
    fetch_tasks(client, 1, tmp_path, page_size=3)  # a complete one is made anew
    assert len(list(fetched_tasks(tmp_path))) == 2


def test_an_expired_access_token_is_renewed(server: StandIn, tmp_path: Path) -> None:
    server.expired = True
    fetch_tasks(LabelStudio(server.url, PERSONAL), 1, tmp_path)
    assert server.exchanges == 2


def test_the_token_goes_to_label_studio_only(server: StandIn, tmp_path: Path) -> None:
    other = StandIn(0)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    server.tasks = server.tasks[:5]
    port = other.server_address[1]
    locations = [
        f"{other.url}/public.png",
        f"//127.0.0.1:{port}/public.png",
        f"http://127.0.0.1:{port}\\@127.0.0.1:{server.server_address[1]}/public.png",
        f"http://127.0.0.1:{server.server_address[1]}@127.0.0.1:{port}/public.png",
        "/api/projects/1/",
    ]
    for task, location in zip(server.tasks, locations, strict=True):
        task["data"]["image"] = location
    studio = LabelStudio(server.url, PERSONAL)
    fetch_tasks(studio, 1, tmp_path)
    problems: list[Problem] = []
    fetch_images(studio, tmp_path, None, problems)
    other.shutdown()
    other.server_close()
    assert other.authorizations == [("/public.png", None)]
    assert (tmp_path / f"images/127.0.0.1:{port}/public.png").read_bytes() == b"public image"
    assert server.authorizations[-1] == ("/api/projects/1/", None)
    assert [problem.task for problem in problems] == [1, 2, 3, 4]


def test_images_in_a_storage_come_through_label_studio(server: StandIn, tmp_path: Path) -> None:
    server.tasks = server.tasks[:1]
    server.tasks[0]["data"]["image"] = "s3://bucket/key.png"
    studio = LabelStudio(server.url, PERSONAL)
    fetch_tasks(studio, 1, tmp_path)
    problems: list[Problem] = []
    fetch_images(studio, tmp_path, None, problems)
    assert problems == []
    assert (tmp_path / "images/bucket/key.png").read_bytes() == b"presigned s3://bucket/key.png"
    header = f"Bearer {server.access}"
    assert server.authorizations[-2:] == [("/tasks/0/presign/", header), ("/bucket", None)]


def test_refused_tokens_are_explained_and_never_shown(server: StandIn, tmp_path: Path) -> None:
    legacy = "0123456789abcdef0123456789abcdef01234567"
    with pytest.raises(LabelStudioError, match=r"answered 401.*personal access token") as caught:
        fetch_tasks(LabelStudio(server.url, legacy), 1, tmp_path / "a")
    assert legacy not in str(caught.value)
    assert legacy not in repr(LabelStudio(server.url, legacy))
    with pytest.raises(LabelStudioError, match="does not exchange the personal access token"):
        fetch_tasks(LabelStudio(server.url, jwt("refresh", mark="other")), 1, tmp_path / "b")
    with pytest.raises(LabelStudioError, match="cannot be reached"):
        fetch_tasks(LabelStudio("http://127.0.0.1:9", legacy), 1, tmp_path / "c")
