"""What the project asks Label Studio's HTTP API for: tasks, predictions, tabs, backends, webhooks, projects.

How it is called, and with which token: ``connection``.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.connection import ApiConnection

__all__ = ["LabelStudio"]

_PAGE = 100
_PAGE_TIMEOUT = 120.0  # whole tasks with all their masks take Label Studio a while


class LabelStudio(ApiConnection):
    """One Label Studio, called with one token, which goes nowhere else. Thread-safe; a process makes one."""

    def whoami(self) -> Mapping[str, Any]:
        """The token's user."""
        user: Mapping[str, Any] = self.call("GET", "/api/current-user/whoami")
        return user

    def tasks(self, project: int) -> Iterator[dict[str, Any]]:
        """All tasks of a project with their data, in pages."""
        for rows in self.task_pages(project):
            yield from rows

    def task_pages(self, project: int, *, complete: bool = False) -> Iterator[list[dict[str, Any]]]:
        """All tasks of a project, some at a time; ``complete`` with their annotations and predictions."""
        seen = 0
        for page in itertools.count(1):
            rows, total = self.task_page(project, page, complete=complete)
            yield rows
            seen += len(rows)
            if not rows or seen >= total:
                return

    def task_page(
        self, project: int, page: int, size: int = _PAGE, *, complete: bool = False
    ) -> tuple[list[dict[str, Any]], int]:
        """Page ``page`` (from 1) of a project's tasks, and how many tasks there are in all."""
        fields, timeout = ("&fields=all", max(self._timeout, _PAGE_TIMEOUT)) if complete else ("", None)
        answer = self.call(
            "GET", f"/api/tasks/?project={project}&page={page}&page_size={size}{fields}", timeout=timeout
        )
        try:
            return answer["tasks"], answer["total"]
        except (KeyError, TypeError):
            raise LabelStudioError(f"{self.url} answers /api/tasks/ without 'tasks' and 'total'") from None

    def project(self, project: int) -> dict[str, Any]:
        """A project: its ``title``, ``label_config``, ``task_number`` and the rest."""
        found: dict[str, Any] = self.call("GET", f"/api/projects/{project}/")
        return found

    def task(self, task_id: int | str) -> dict[str, Any] | None:
        """A task with its annotations, None if there is none of this id."""
        found: dict[str, Any] | None = self.find(f"/api/tasks/{_number(task_id)}/")
        return found

    def set_task_data(self, task_id: int, data: Mapping[str, Any]) -> None:
        """Replace the data of a task; its annotations and predictions stay."""
        self.call("PATCH", f"/api/tasks/{_number(task_id)}/", {"data": data})

    def put_tab(self, project: int, title: str, view: Mapping[str, Any]) -> int:
        """Make a tab of the Data Manager, or change the one of that title; the tab's id.

        A project that nobody has opened has no tab; it gets its usual one too, else this would be the only one.

        Args:
            project: the project's id.
            title: what the tab is called.
            view: filters, ordering and columns, as the Data Manager stores them.
        """
        found = self.call("GET", f"/api/dm/views/?project={project}")
        if not found:
            self.call("POST", f"/api/dm/views/?project={project}", {"project": project, "data": {"title": "Default"}})
        body = {"project": project, "data": {**view, "title": title}}
        for row in found:
            if (row.get("data") or {}).get("title") == title:
                self.call("PATCH", f"/api/dm/views/{row['id']}/?project={project}", body)
                return int(row["id"])
        return int(self.call("POST", f"/api/dm/views/?project={project}", body)["id"])

    def name_backend(self, project: int, model_version: str) -> bool:
        """Call the project's backends of this model version after it; whether there is one.

        Label Studio 1.23 fills the Data Manager's column "Prediction score" from the predictions whose version has the
        name of the project's chosen model. When a backend is connected, its title becomes that name, so that the column
        is empty unless title and version are the same.
        """
        rows = [row for row in self.backends(project) if row.get("model_version") == model_version]
        for row in rows:
            if row["title"] != model_version:
                self.rename_backend(project, row, model_version)
                self.follow_backend(project, {str(row["title"])}, model_version)
        return bool(rows)

    def rename_backend(self, project: int, backend: Mapping[str, Any], title: str) -> None:
        """Give a connected backend (a row of :meth:`backends`) another title; its credentials stay."""
        body = {"project": project, "url": backend["url"], "title": title}
        if backend.get("auth_method", "NONE") != "NONE":
            # Label Studio tries the connection with what is sent here; for an empty password it takes the stored one.
            body |= {"auth_method": backend["auth_method"], "basic_auth_user": backend.get("basic_auth_user") or ""}
            body["basic_auth_pass"] = ""
        self.call("PATCH", f"/api/ml/{backend['id']}", body)

    def follow_backend(self, project: int, former: Collection[str], title: str) -> bool:
        """Have the project's chosen model be ``title`` where it is still one of ``former``; whether it was."""
        if self.project(project).get("model_version") not in former:
            return False
        self.call("PATCH", f"/api/projects/{project}/", {"model_version": title})
        return True

    def backends(self, project: int) -> list[dict[str, Any]]:
        """The backends that are connected to a project: ``id``, ``url``, ``title``, ``model_version`` and the rest."""
        found = self.call("GET", f"/api/ml?project={project}")
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    def webhooks(self, project: int) -> list[dict[str, Any]]:
        """The webhooks of a project: ``id``, ``url``, ``headers``, ``is_active`` and the rest."""
        found = self.call("GET", f"/api/webhooks/?project={project}")
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    def set_webhook_headers(
        self, project: int, webhook: int, headers: Mapping[str, str], actions: Sequence[str] = ()
    ) -> None:
        """Replace what a webhook sends along; ``actions`` are those it is for, which Label Studio would forget."""
        body = {"headers": dict(headers), "actions": list(actions)}
        self.call("PATCH", f"/api/webhooks/{webhook}/?project={project}", body)

    def projects(self) -> list[dict[str, Any]]:
        """The projects that the token's user sees, with their labeling configs."""
        found: list[dict[str, Any]] = []
        for page in itertools.count(1):
            answer = self.call("GET", f"/api/projects/?page={page}&page_size={_PAGE}")
            found += answer["results"]
            if not answer.get("next"):
                return found
        raise AssertionError("unreachable")  # pragma: no cover

    def presigned(self, task_id: int | str, uri: str) -> str:
        """Where Label Studio serves a ``s3://``, ``gs://`` or ``azure-blob://`` image of a task.

        Raises:
            LabelStudioError: ``task_id`` is no task's id.
        """
        encoded = base64.urlsafe_b64encode(uri.encode()).decode()
        return f"{self.url}/tasks/{_number(task_id)}/presign/?fileuri={encoded}"

    def has_prediction(self, task_id: int | str, model_version: str) -> bool:
        """Whether the task already holds a prediction of this model version."""
        found = self.call("GET", f"/api/predictions/?task={_number(task_id)}")
        rows = found.get("results", []) if isinstance(found, dict) else found or []
        return any(str(row.get("model_version")) == model_version for row in rows)

    def add_prediction(self, task_id: int | str, prediction: Mapping[str, Any]) -> None:
        """Store a prediction for a task."""
        self.call("POST", "/api/predictions/", {"task": task_id, **prediction})

    def predictions_of(self, project: int, model_version: str) -> Iterator[int]:
        """Ids of the predictions of one model version that a project's tasks hold."""
        for rows in self.task_pages(project, complete=True):
            for row in rows:
                for prediction in row.get("predictions") or []:
                    if str(prediction.get("model_version")) == model_version:
                        yield int(prediction["id"])

    def delete_prediction(self, prediction: int) -> None:
        """Remove a prediction; annotations that began from it stay."""
        self.call("DELETE", f"/api/predictions/{prediction}/")


def _number(task_id: int | str) -> str:
    """A task's id as it stands in a path; whatever else a request named so would change the path."""
    text = str(task_id)
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise LabelStudioError(f"{text[:80]!r} is not the id of a task of Label Studio")
    return text
