"""Hosts that send a byte now and then: each fetch ends in time, and nobody else waits for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.database import Database
from backend.server.answers.clicks import ClickQueue
from backend.server.images import TaskImages
from backend.settings import Settings
from dataset_tools.errors import ImageError, LabelStudioError
from dataset_tools.label_studio.addresses import Route
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.deadlines import whole

HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "status": b"H",
    "headers": HEAD + b"X-A: ",
    "body": HEAD + b"Content-Length: 100000\r\n\r\n",
    "chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n186a0\r\n",
    "compressed": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 100000\r\n\r\n\x1f\x8b\x08",
    "error": b"HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n",
}


@pytest.fixture
def dripping() -> Iterator[tuple[str, list[bytes]]]:
    """An address whose host begins as the list's first entry says, then sends a byte every tenth of a second."""
    begin: list[bytes] = [b""]
    listener = socket.create_server(("127.0.0.1", 0))
    closed = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(begin[0])
                while not closed.wait(0.1):
                    connection.sendall(b"0")
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.png", begin
    closed.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.parametrize("kind", DRIPS)
def test_a_dripping_image_ends_with_its_deadline(dripping: tuple[str, list[bytes]], tmp_path: Path, kind: str) -> None:
    url, begin = dripping
    begin[0] = DRIPS[kind]
    database = Database.of_state(tmp_path)
    settings = Settings(state_dir=tmp_path, image_hosts=("127.0.0.1",), fetch_timeout=0.5)
    images = TaskImages(settings, None, database)
    ended = threading.Event()
    reasons: list[str] = []

    def fetch() -> None:
        try:
            images.load(url)
        except ImageError as error:
            reasons.append(str(error))
        ended.set()

    threading.Thread(target=fetch, daemon=True).start()
    assert ended.wait(30)
    assert "too slow" in reasons[0] or "500" in reasons[0]
    database.close()


@pytest.mark.parametrize("kind", [name for name in DRIPS if name != "error"])
def test_a_dripping_label_studio_does_not_hold_a_thread(dripping: tuple[str, list[bytes]], kind: str) -> None:
    url, begin = dripping
    begin[0] = DRIPS[kind]
    studio = LabelStudio(url.removesuffix("/a.png"), "0123456789abcdef0123456789abcdef01234567", 0.3)
    ended = threading.Event()

    def call() -> None:
        with pytest.raises(LabelStudioError):
            studio.whoami()
        ended.set()

    threading.Thread(target=call, daemon=True).start()
    assert ended.wait(30)


def test_every_session_is_cut(dripping: tuple[str, list[bytes]]) -> None:
    url, _ = dripping
    with whole(0.3) as deadline, pytest.raises(OSError):  # noqa: PT011 - whichever of requests'
        Route().session().get(url, timeout=5)
    assert deadline.passed


def test_clicks_that_fetch_take_no_place() -> None:
    queue = ClickQueue(capacity=4, running=2)
    release, fetching = threading.Event(), threading.Barrier(7)

    def fetch(number: int) -> None:
        with queue.turn(number, [b"a"]) as granted, queue.away():
            assert granted
            fetching.wait(60)
            release.wait(60)

    threads = [threading.Thread(target=fetch, args=(number,), daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
        until = time.monotonic() + 60
        while sum(request.away for request in queue._requests) <= threads.index(thread) and time.monotonic() < until:
            time.sleep(0.01)
    fetching.wait(60)
    with queue.turn("warm", [b"a"]) as granted:
        assert granted
    release.set()
    for thread in threads:
        thread.join(60)
    assert len(queue) == 0
