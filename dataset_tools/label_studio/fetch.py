"""Tasks and images of a project, fetched page by page from Label Studio's API; an interrupted fetch goes on.

<folder>/fetch.json          what is fetched, and whether all pages are there
<folder>/page-00001.json     tasks as the API gives them
<folder>/images/<path>       images, under the path of their URL
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

import requests

from dataset_tools import atomic
from dataset_tools.errors import DatasetError
from dataset_tools.label_studio.exports import Problem

_TIMEOUT = (5, 120)
MAX_IMAGE_BYTES = 1 << 30


@dataclass
class Client:
    """A Label Studio and a token for it.

    Attributes:
        url: base address, e.g. ``http://localhost:8080``.
        token: a personal access token (exchanged for access tokens, which are renewed) or a legacy token.
    """

    url: str
    token: str = field(repr=False)
    _session: requests.Session = field(default_factory=requests.Session, repr=False)
    _header: str | None = field(default=None, repr=False)

    def get(self, path: str, **parameters: Any) -> requests.Response:
        """GET ``path`` (or a URL of the same origin) with the token.

        Raises:
            DatasetError: Label Studio is away, refuses the token, or answers with an error.
        """
        response = self.find(path, **parameters)
        if response is None:
            raise DatasetError(f"{self.url} answered 404 to {path}: there is no such thing")
        return response

    def find(self, path: str, **parameters: Any) -> requests.Response | None:
        """The same; None where Label Studio has nothing there (404)."""
        response = self._send(path, parameters)
        if response.status_code == 401 and self._is_personal():  # access tokens live five minutes
            self._header = None
            response = self._send(path, parameters)
        if response.status_code == 401:
            kind = "personal access token" if self._is_personal() else "legacy token"
            raise DatasetError(
                f"{self.url} refused the {kind} (401): {response.text[:200]}; "
                "create a personal access token under Account & Settings and pass it with --api-key"
            )
        if response.status_code == 404:
            return None
        if not response.ok:
            raise DatasetError(f"{self.url} answered {response.status_code} to {path}: {response.text[:200]}")
        return response

    def _is_personal(self) -> bool:
        return self.token.count(".") == 2

    def _send(self, path: str, parameters: Mapping[str, Any]) -> requests.Response:
        try:
            if self._header is None:
                self._header = f"Token {self.token}"
                if self._is_personal():
                    answer = self._session.post(
                        urljoin(self.url, "/api/token/refresh/"), json={"refresh": self.token}, timeout=_TIMEOUT
                    )
                    if not answer.ok:
                        raise DatasetError(f"{self.url} refused the personal access token: {answer.text[:200]}")
                    self._header = f"Bearer {answer.json()['access']}"
            return self._session.get(
                urljoin(self.url, path), params=parameters, headers={"Authorization": self._header}, timeout=_TIMEOUT
            )
        except (requests.RequestException, KeyError, ValueError) as error:
            raise DatasetError(f"{self.url} is not to be reached: {error}") from error


def fetch_tasks(
    client: Client,
    project: int,
    folder: Path,
    *,
    page_size: int = 100,
    progress: Callable[[int], object] = lambda _n: None,
) -> None:
    """Fetch all tasks of a project into ``folder``; whole pages of an interrupted fetch are not fetched again.

    Args:
        client: where from.
        project: the project's id.
        folder: holds one fetch; a complete one is fetched anew.
        page_size: tasks per request.
        progress: called with the number of tasks after every page.

    Raises:
        DatasetError: the API fails, or ``folder`` holds the fetch of another project.
    """
    state = {"url": client.url, "project": project, "page_size": page_size}
    file = folder / "fetch.json"
    if file.is_file():
        known = json.loads(file.read_text())
        if known.pop("complete", False):
            for old in folder.glob("page-*.json"):
                old.unlink()
        elif known != state:
            raise DatasetError(f"{folder} holds an unfinished fetch of {known}; choose another folder")
    atomic.write_text(file, json.dumps(state))
    page = 0
    while True:
        page += 1
        path = folder / f"page-{page:05d}.json"
        if path.is_file() and len(tasks := json.loads(path.read_bytes())) == page_size:
            progress(len(tasks))
            continue
        body = client.get("/api/tasks/", project=project, page=page, page_size=page_size, fields="all").json()
        tasks = body["tasks"] if isinstance(body, dict) else body
        atomic.write_text(path, json.dumps(tasks))
        progress(len(tasks))
        total = body.get("total") if isinstance(body, dict) else None
        if len(tasks) < page_size or (total is not None and page * page_size >= total):
            break
    atomic.write_text(file, json.dumps({**state, "complete": True}))


def fetched_tasks(folder: Path) -> Iterator[dict[str, Any]]:
    """The tasks of a fetch, a page at a time.

    Raises:
        DatasetError: the fetch is not complete.
    """
    file = folder / "fetch.json"
    if not file.is_file() or not json.loads(file.read_text()).get("complete"):
        raise DatasetError(f"{folder} holds no complete fetch; fetch again, it goes on where it stopped")
    for path in sorted(folder.glob("page-*.json")):
        yield from json.loads(path.read_bytes())


def fetch_images(client: Client, folder: Path, image_key: str | None, problems: list[Problem]) -> None:
    """Download the images of fetched tasks that have annotations; what is there already stays.

    The token goes to Label Studio's own origin only. An image that cannot be had is a problem of its task.
    """
    for task in fetched_tasks(folder):
        if not task.get("annotations"):
            continue
        location = task["data"].get(image_key or "image")
        if not isinstance(location, str):
            continue
        parts = urlsplit(location)
        path = unquote(parse_qs(parts.query).get("d", [parts.path])[0]).lstrip("/")
        target = (folder / "images" / path).resolve()
        if not target.is_relative_to((folder / "images").resolve()):
            problems.append(Problem(task.get("id"), f"the image {location!r} leaves the folder"))
            continue
        if target.is_file():
            continue
        try:
            atomic.write_bytes(target, _download(client, location))
        except (DatasetError, OSError) as error:
            problems.append(Problem(task.get("id"), f"{location}: {error}"))


def _download(client: Client, location: str) -> bytes:
    parts = urlsplit(location)
    own = not parts.scheme or (parts.scheme, parts.netloc) == urlsplit(client.url)[:2]
    if own:
        return client.get(location).content
    if parts.scheme not in ("http", "https"):
        raise DatasetError(f"{parts.scheme}:// images are not downloaded; name a folder that has them (--images)")
    try:
        response = requests.get(location, timeout=_TIMEOUT, stream=True)
        response.raise_for_status()
        content = bytearray()
        for chunk in response.iter_content(1 << 20):
            content += chunk
            if len(content) > MAX_IMAGE_BYTES:
                raise DatasetError(f"the image is larger than {MAX_IMAGE_BYTES:,} bytes")
        return bytes(content)
    except requests.RequestException as error:
        raise DatasetError(f"the image cannot be downloaded: {error}") from error
