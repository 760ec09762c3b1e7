"""What makes a project of Label Studio: the project itself, its images, its tasks, its backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio

__all__ = ["add_tasks", "connect_backend", "create_project", "project_called", "serve_local_files", "upload"]

_UPLOAD_TIMEOUT = 120.0
_CONNECT_TIMEOUT = 60.0  # Label Studio asks the backend for its health and its set-up before it answers


def project_called(studio: LabelStudio, title: str) -> int | None:
    """Id of a project of this title, None without one."""
    return next((int(row["id"]) for row in studio.projects() if row.get("title") == title), None)


def create_project(studio: LabelStudio, title: str, label_config: str) -> int:
    """Make a project; its id.

    Raises:
        LabelStudioError: Label Studio refuses the title or the labeling config.
    """
    return int(studio.call("POST", "/api/projects/", {"title": title, "label_config": label_config})["id"])


def upload(studio: LabelStudio, project: int, files: Sequence[tuple[str, bytes]]) -> list[str]:
    """Store files in Label Studio without making tasks of them.

    Args:
        studio: where to.
        project: whose files they become.
        files: (name, content), at most 100.

    Returns:
        The addresses to put into tasks (``/data/upload/<project>/<8 hex>-<name>``), in the order of ``files``.
    """
    answer = studio.call(
        "POST", f"/api/projects/{project}/import?commit_to_project=false", files=files, timeout=_UPLOAD_TIMEOUT
    )
    ids = [int(number) for number in answer.get("file_upload_ids") or ()]
    rows = studio.call("GET", f"/api/projects/{project}/file-uploads?ids={quote(str(ids))}")
    names = {int(row["id"]): str(row["file"]) for row in rows}
    if len(ids) != len(files) or not names.keys() >= set(ids):
        raise LabelStudioError(
            f"Label Studio at {studio.url} was sent {len(files)} files and knows {len(names)} of them; try again"
        )
    prefix = urlsplit(studio.url).path
    return [f"{prefix}/data/{names[number]}" for number in ids]


def add_tasks(studio: LabelStudio, project: int, data: Sequence[Mapping[str, Any]]) -> list[int]:
    """Make one task of each item of ``data``; their ids in the same order, as far as Label Studio says them."""
    body = [{"data": dict(item)} for item in data]
    path = f"/api/projects/{project}/import?return_task_ids=true"
    answer = studio.call("POST", path, body, timeout=_UPLOAD_TIMEOUT)
    return [int(number) for number in answer.get("task_ids") or ()]


def connect_backend(
    studio: LabelStudio, project: int, url: str, title: str, credentials: tuple[str, str] | None = None
) -> str:
    """Connect an ML backend, for batches and for clicks, unless it is; the version that it serves.

    Args:
        studio: which is to call it.
        project: whose backend it becomes.
        url: as Label Studio reaches it.
        title: what it is called until it is named after its version.
        credentials: user and password that it wants.

    Raises:
        LabelStudioError: Label Studio does not reach it, or it is none.
    """
    known = next((row for row in studio.backends(project) if _same(row.get("url"), url)), None)
    if known is None:
        body: dict[str, Any] = {"project": project, "url": url, "title": title, "is_interactive": True}
        if credentials is not None:
            user, password = credentials
            body |= {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
        known = studio.call("POST", "/api/ml/", body, timeout=_CONNECT_TIMEOUT)
    if known.get("state") != "CO":
        known = studio.call("GET", f"/api/ml/{int(known['id'])}", timeout=_CONNECT_TIMEOUT)
    if known.get("state") != "CO":
        raise LabelStudioError(
            f"Label Studio is not connected to the backend at {url}: {known.get('error_message') or 'no reason given'}"
        )
    version = str(known.get("model_version") or "")
    if version:
        studio.name_backend(project, version)
    return version


def _same(url: object, other: str) -> bool:
    return str(url).rstrip("/") == other.rstrip("/")


def serve_local_files(studio: LabelStudio, project: int, folder: PurePosixPath) -> None:
    """Have Label Studio serve the files below ``folder`` to the project's annotators, without making tasks of them.

    Args:
        studio: which serves them.
        project: whose storage it becomes.
        folder: absolute, as the machine of Label Studio has it.

    Raises:
        LabelStudioError: it does not serve local files, or none of this folder; says what to set.
    """
    rows = studio.call("GET", f"/api/storages/localfiles?project={project}")
    if any(_same(row.get("path"), str(folder)) for row in rows or ()):
        return
    body = {"project": project, "title": folder.name, "path": str(folder), "use_blob_urls": True}
    studio.call("POST", "/api/storages/localfiles", body)
