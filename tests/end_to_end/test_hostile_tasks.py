"""An imported tasks.json of unknown origin: whatever its images are called, nobody else hears from the backend."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from backend.cli import pslg
from backend.demo.backend_process import BackendProcess
from backend.labeling_configs import read_labeling_config
from dataset_tools.errors import LabelStudioError
from tests.end_to_end.conftest import StartBackend, Studio
from tests.end_to_end.projects import LABELING_CONFIG, png
from tests.end_to_end.scenes import airplane_scene

pytestmark = pytest.mark.timeout(1800)


class Listener:
    """Who listens at a host that a task names: keeps what comes, answers with a picture or sends on to Label Studio.

    Attributes:
        heard: heads of the requests, one for each connection.
    """

    def __init__(self, picture: bytes, studio: str) -> None:
        self.heard: list[bytes] = []
        self._picture, self._studio = picture, studio
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                head = connection.recv(65536)
                self.heard.append(head)
                if b"/onward" in head.split(b"\r\n")[0]:
                    to = f"{self._studio}/api/projects/"
                    connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode())
                    continue
                size = len(self._picture)
                connection.sendall(
                    f"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {size}\r\n\r\n".encode()
                )
                connection.sendall(self._picture)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(studio: Studio) -> Iterator[Listener]:
    found = Listener(png(airplane_scene().image), studio.url)
    yield found
    found.close()


def _hostile(studio: Studio, port: int) -> list[str]:
    """Addresses that name the listener in ways that one parser or another takes for Label Studio's own."""
    own = studio.url.removeprefix("http://")
    other = f"127.0.0.1:{port}"
    return [
        f"http://{other}\\@{own}/data/upload/x.png",
        f"http://{other}\\\\@{own}/data/x.png",
        f"http:\\\\{other}/data/x.png",
        f"//{other}/data/upload/x.png",
        f"///{other}/data/x.png",
        f"/\\{other}/data/x.png",
        f"\\\\{other}/data/x.png",
        f"http://{own}@{other}/data/x.png",
        f"http://{own}:x@{other}/data/x.png",
        f"http://{other}#@{own}/data/x.png",
        f"http://{other}?@{own}/data/x.png",
        f"http://{own}\t.{other}/data/x.png",
        f"http://{other}\n/data/x.png",
        f" http://{other}/data/x.png",
        f"http:{other}/data/x.png",
        f"http:/{other}/data/x.png",
        f"http://localhost:{port}/data/x.png",
        f"http://2130706433:{port}/data/x.png",
        f"http://0x7f.1:{port}/data/x.png",
        f"http://[::ffff:127.0.0.1]:{port}/x.png",
        f"http://１２７.0.0.1:{port}/x.png",
        f"{studio.url}/data/upload/../../{other}/x.png",
        f"{studio.url}/api/projects/../../logout?next=http://{other}/x.png",
        f"/data/upload/1/x.png\r\nHost: {other}",
        f"http://{other}/onward.png",
        f"http://{other}/data/x.png",
    ]


def _opened_and_clicked(studio: Studio, backend: BackendProcess, project: int, tasks: list[int]) -> None:
    """All that Label Studio does of itself with tasks, and a click on each."""
    connected = studio.client.connect_backend(project, backend.url)
    studio.client.retrieve_predictions(project, tasks)
    headers = {"Authorization": f"Token {studio.process.token}"}
    for task in tasks:
        requests.get(f"{studio.url}/api/tasks/{task}?project={project}", headers=headers, timeout=60).raise_for_status()
        shape: dict[str, Any] = {"original_width": 600, "original_height": 600, "image_rotation": 0}
        value = {"x": 50, "y": 50, "width": 0.4, "keypointlabels": ["airplane"]}
        click = {"id": "p", "type": "keypointlabels", "from_name": "point", "to_name": "image", "is_positive": True}
        with contextlib.suppress(LabelStudioError):
            studio.client.suggestions(connected.id, task, [{**click, **shape, "value": value}])


def test_a_hostile_tasks_json_sends_nothing_anywhere(
    studio: Studio, personal_access_token: str, start_backend: StartBackend, listener: Listener, tmp_path: Path
) -> None:
    addresses = _hostile(studio, listener.port)
    data = [{"image": image, "expression": "all the airplanes"} for image in addresses]
    project = studio.client.create_project("Of unknown origin", read_labeling_config(LABELING_CONFIG))
    tasks = studio.client.import_tasks(project, data)
    assert len(tasks) == len(addresses)
    backend = start_backend(personal_access_token)
    _opened_and_clicked(studio, backend, project, tasks)
    assert all(not prediction.result for prediction in studio.client.predictions(project))
    words = ["dataset", "export", studio.url, str(tmp_path / "out"), "--project", str(project), "--format", "coco"]
    environment = {"LABEL_STUDIO_API_KEY": personal_access_token}
    CliRunner().invoke(pslg, [*words, "--cache", str(tmp_path / "cache")], env=environment)
    assert listener.heard == []

    # The same tasks where an administrator allows the host: it is asked for pictures, and told no credentials.
    backend.stop()
    allowing = start_backend(
        personal_access_token, PSLG_IMAGE_HOSTS="127.0.0.1", PSLG_STATE_DIR=str(tmp_path / "other")
    )
    again = studio.client.create_project("Again", read_labeling_config(LABELING_CONFIG))
    _opened_and_clicked(studio, allowing, again, studio.client.import_tasks(again, data))
    assert any(head.startswith(b"GET /data/x.png ") for head in listener.heard), "the listener itself works"
    for head in listener.heard:
        assert b"authorization" not in head.lower()
        assert b"cookie" not in head.lower()
        assert personal_access_token.encode() not in head
        assert studio.process.token.encode() not in head
