"""What the demo and the tests ask of Label Studio's API: label-studio-sdk's client, plus what it does not offer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import requests
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from dataset_tools.errors import LabelStudioError

TIMEOUT = 130.0
"""Seconds for one call: Label Studio itself gives a backend 100 s to answer a batch."""


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction as Label Studio stores it.

    Attributes:
        id, task: its id and its task's.
        model_version: as the backend named it.
        score: None when the backend gave none.
        result: the regions.
    """

    id: int
    task: int
    model_version: str
    score: float | None
    result: list[dict[str, Any]]


@dataclass(frozen=True)
class ConnectedBackend:
    """An ML backend as Label Studio sees it: id, title, the state (``CO`` connected), version and error message."""

    id: int
    title: str
    state: str
    model_version: str | None
    error_message: str | None


class LabelStudioClient:
    """Calls to one Label Studio, as one user.

    Every method raises LabelStudioError with the status and the reason when Label Studio refuses or is away.

    Args:
        url: base address.
        token: legacy token or personal access token of the user.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        # Loopback only: a proxy of the environment must not get between.
        self._http = httpx.Client(trust_env=False, timeout=TIMEOUT, follow_redirects=True)
        self._sdk = LabelStudio(base_url=self.url, api_key=token, httpx_client=self._http, timeout=TIMEOUT)
        self._session = requests.Session()
        self._session.trust_env = False
        self._token = token

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._session.close()

    def create_project(self, title: str, label_config: str) -> int:
        """Create a project; its id."""
        with _explained("create a project"):
            return int(self._sdk.projects.create(title=title, label_config=label_config).id)

    def upload_image(self, project: int, name: str, content: bytes) -> str:
        """Store an image file in Label Studio without making a task of it.

        Returns:
            the address to put into a task (``/data/upload/<project>/<8 hex>-<name>``).
        """
        answer = self._call(
            "POST", f"/api/projects/{project}/import?commit_to_project=false", files={name: (name, content)}
        )
        (upload,) = answer["file_upload_ids"]
        with _explained(f"find the uploaded {name}"):
            return f"/data/{self._sdk.files.get(upload).file}"

    def import_tasks(self, project: int, data: Sequence[Mapping[str, Any]]) -> list[int]:
        """Create one task per item of ``data``; their ids in the same order."""
        with _explained("import tasks"):
            answer = self._sdk.projects.import_tasks(
                project, request=[{"data": dict(item)} for item in data], return_task_ids=True
            )
        return [int(task) for task in answer.task_ids]

    def connect_backend(self, project: int, url: str, title: str = "PSLG-SAM") -> ConnectedBackend:
        """Connect an ML backend, for batches and for clicks."""
        with _explained(f"connect the ML backend at {url}"):
            backend = self._sdk.ml.create(project=project, url=url, title=title, is_interactive=True)
        return self.backend(int(backend.id))

    def backend(self, backend: int) -> ConnectedBackend:
        """The state of a connected backend; asking makes Label Studio call /health and /setup again."""
        answer = self._call("GET", f"/api/ml/{backend}")
        return ConnectedBackend(
            id=int(answer["id"]),
            title=str(answer.get("title") or ""),
            state=answer["state"],
            model_version=answer.get("model_version"),
            error_message=answer.get("error_message"),
        )

    def retrieve_predictions(self, project: int, tasks: Sequence[int]) -> None:
        """The Data Manager's "Retrieve predictions" for some tasks; Label Studio answers when it is done.

        It answers 200 also when the backend failed: look at ``predictions`` afterwards.
        """
        with _explained("retrieve predictions"):
            self._sdk.actions.create(
                id="retrieve_tasks_predictions",
                project=project,
                selected_items={"all": False, "included": list(tasks)},
            )

    def predictions(self, project: int) -> list[StoredPrediction]:
        """Every stored prediction of a project."""
        with _explained("list predictions"):
            stored = self._sdk.predictions.list(project=project)
        return [
            StoredPrediction(
                id=int(item.id),
                task=int(item.task),
                model_version=item.model_version or "",
                score=item.score,
                result=list(item.result or []),
            )
            for item in stored
        ]

    def annotations(self, task: int) -> list[dict[str, Any]]:
        """The annotations of a task, as Label Studio's API returns them."""
        answer: list[dict[str, Any]] = self._call("GET", f"/api/tasks/{task}/annotations/")
        return answer

    def suggestions(self, backend: int, task: int, prompts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the editor is answered to clicks, a box or a text: the suggested regions."""
        body = {"task": task, "context": {"result": list(prompts)}}
        answer = self._call("POST", f"/api/ml/{backend}/interactive-annotating", json=body)
        if answer.get("errors"):
            raise LabelStudioError(f"Label Studio got no suggestion from the ML backend: {answer['errors']}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def create_annotation(self, task: int, result: Sequence[Mapping[str, Any]], **more: Any) -> int:
        """Submit an annotation with these regions and what else of it is given (``lead_time``, ``was_cancelled``...);
        its id.
        """
        answer = self._call("POST", f"/api/tasks/{task}/annotations/", json={"result": list(result), **more})
        return int(answer["id"])

    def start_training(self, backend: int) -> None:
        """The "Start training" button of a connected backend."""
        self._call("POST", f"/api/ml/{backend}/train", json={})

    def delete_annotation(self, annotation: int) -> None:
        """Delete an annotation."""
        self._call("DELETE", f"/api/annotations/{annotation}/")

    def personal_access_token(self) -> str:
        """Create the user's personal access token (one valid token per user; shown once)."""
        with _explained("create a personal access token"):
            return str(self._sdk.tokens.create().token)

    def set_legacy_tokens(self, *, enabled: bool) -> None:
        """Allow or refuse legacy tokens in the organization; personal access tokens stay allowed."""
        self._call("POST", "/api/jwt/settings", json={"api_tokens_enabled": True, "legacy_api_tokens_enabled": enabled})

    def _authorization(self) -> str:
        if self._token.count(".") != 2:
            return f"Token {self._token}"
        # A personal access token (a JWT) is only good for getting an access token, which lives for five minutes.
        with _explained("exchange the personal access token"):
            return f"Bearer {self._sdk.tokens.refresh(refresh=self._token).access}"

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        authorization = {"Authorization": self._authorization()}
        try:
            response = self._session.request(
                method, f"{self.url}{path}", timeout=TIMEOUT, headers=authorization, **arguments
            )
        except requests.RequestException as error:
            raise LabelStudioError(f"Label Studio at {self.url} does not answer {method} {path}: {error}") from error
        if not response.ok:
            raise LabelStudioError(
                f"Label Studio refused {method} {path} with status {response.status_code}: {response.text[:500]}"
            )
        return response.json() if response.content else None


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        # The SDK's own text carries every response header, cookies too.
        raise LabelStudioError(
            f"Label Studio refused to {what} with status {error.status_code}: {str(error.body)[:500]}"
        ) from error
    except httpx.HTTPError as error:
        raise LabelStudioError(f"Label Studio does not answer ({what}): {error}") from error
