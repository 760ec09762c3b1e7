"""What a webhook (or a task fetched over the API) says about projects, tasks and annotations. Pure; no database.

Source: the bodies that Label Studio 1.23 sends. ``ANNOTATIONS_CREATED`` carries lists where ``ANNOTATION_CREATED``
carries one object; a deletion carries ids only; deleting a task sends no deletion of its annotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from backend.learning.annotations.events import MOST_ID, Event
from dataset_tools.errors import ProtocolError
from dataset_tools.label_studio.notes import stated

__all__ = [
    "AnnotationDeleted",
    "AnnotationSeen",
    "Change",
    "ProjectSeen",
    "TaskDeleted",
    "TaskSeen",
    "TrainingWanted",
    "annotation_seen",
    "changes",
    "project_seen",
    "task_seen",
]

_FUTURE = 86_400.0  # seconds by which Label Studio's clock may be ahead
_LAST = 253_402_300_799  # of the year 9999
MASK_TYPES = ("brushlabels", "polygonlabels")
"""Results that outline an object. A rectangle does not, and a smart click or its second result is no object at all."""


@dataclass(frozen=True)
class ProjectSeen:
    """A project as it is now; times in microseconds of Label Studio's clock."""

    id: int
    created_at: int
    updated_at: int
    title: str
    label_config: str


@dataclass(frozen=True)
class TaskSeen:
    """A task as it is now."""

    id: int
    updated_at: int
    data: dict[str, Any]


@dataclass(frozen=True)
class TaskDeleted:
    """A task is gone, and its annotations with it."""

    id: int


@dataclass(frozen=True)
class AnnotationSeen:
    """An annotation as it is now; ``body`` is Label Studio's, without the prediction that it began from."""

    id: int
    task: int | None
    unique_id: str | None
    created_at: int
    updated_at: int
    skipped: bool
    masks: int
    body: dict[str, Any]


@dataclass(frozen=True)
class AnnotationDeleted:
    """An annotation is gone."""

    id: int


@dataclass(frozen=True)
class TrainingWanted:
    """Somebody pressed "Start training"."""


Change: TypeAlias = ProjectSeen | TaskSeen | TaskDeleted | AnnotationSeen | AnnotationDeleted | TrainingWanted


def changes(event: Event) -> Iterator[Change]:
    """The changes of one event, its project first; other actions have none of their own.

    Raises:
        ProtocolError: the body lacks what its action carries. Changes before that were yielded and stand.
    """
    body = event.body
    if isinstance(body.get("project"), dict):
        project = project_seen(body["project"])
        _require_past(event, project.created_at, project.updated_at)
        yield project
    match event.action:
        case "ANNOTATION_CREATED" | "ANNOTATION_UPDATED" | "ANNOTATIONS_CREATED":
            tasks = [task_seen(task) for task in _objects(body, "task")]
            only = tasks[0].id if len(tasks) == 1 else None
            annotations = [annotation_seen(annotation, only) for annotation in _objects(body, "annotation")]
            _require_past(event, *(task.updated_at for task in tasks))
            _require_past(event, *(moment for found in annotations for moment in (found.created_at, found.updated_at)))
            yield from tasks
            yield from annotations
        case "ANNOTATIONS_DELETED":
            for annotation in _objects(body, "annotations"):
                yield AnnotationDeleted(_identity(annotation, "an annotation"))
        case "TASKS_CREATED":
            tasks = [task_seen(task) for task in _objects(body, "tasks")]
            _require_past(event, *(task.updated_at for task in tasks))
            yield from tasks
        case "TASKS_DELETED":
            for task in _objects(body, "tasks"):
                yield TaskDeleted(_identity(task, "a task"))
        case "START_TRAINING":
            yield TrainingWanted()


def _require_past(event: Event, *moments: int) -> None:
    """Refuse times well after the event came: nothing that came later could be newer."""
    latest = max(moments, default=0)
    if latest > (event.received_at + _FUTURE) * 1_000_000:
        moment = datetime.fromtimestamp(min(latest / 1_000_000, _LAST), UTC).isoformat(timespec="seconds")
        raise ProtocolError(f"dated {moment}, more than a day after it came; `pslg sync` fetches what is true")


def project_seen(project: Mapping[str, Any]) -> ProjectSeen:
    """A project of Label Studio's API; raises ProtocolError without an id."""
    created = _microseconds(project.get("created_at"))
    return ProjectSeen(
        id=_identity(project, "a project"),
        created_at=created,
        updated_at=_microseconds(project.get("updated_at"), created),
        title=str(project.get("title") or ""),
        label_config=str(project.get("label_config") or ""),
    )


def task_seen(task: Mapping[str, Any]) -> TaskSeen:
    """A task of Label Studio's API; raises ProtocolError without id or data."""
    data = task.get("data")
    if not isinstance(data, dict):
        raise ProtocolError("a task has no data")
    return TaskSeen(_identity(task, "a task"), _microseconds(task.get("updated_at")), data)


def annotation_seen(annotation: Mapping[str, Any], task: int | None = None) -> AnnotationSeen:
    """An annotation of Label Studio's API.

    Args:
        annotation: with its ``result``.
        task: id of the task, where the annotation does not say it.

    Raises:
        ProtocolError: it has no id, or a result that is no list.
    """
    result = annotation.get("result")
    if not isinstance(result, list):
        raise ProtocolError(f"annotation {annotation.get('id')} has no result")
    created = _microseconds(annotation.get("created_at"))
    owner = annotation.get("task")
    unique_id = annotation.get("unique_id")
    return AnnotationSeen(
        id=_identity(annotation, "an annotation"),
        task=owner if isinstance(owner, int) else task,
        unique_id=unique_id if isinstance(unique_id, str) else None,
        created_at=created,
        updated_at=_microseconds(annotation.get("updated_at"), created),
        skipped=bool(annotation.get("was_cancelled")),
        masks=sum(isinstance(item, dict) and item.get("type") in MASK_TYPES for item in stated(result)),
        body=dict(annotation),
    )


def _objects(body: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = body.get(key)
    items = value if isinstance(value, list) else [value]
    found = [item for item in items if isinstance(item, dict)]
    if len(found) < len(items):
        raise ProtocolError(f"{key!r} is neither an object nor a list of objects")
    return found


def _identity(value: Mapping[str, Any], what: str) -> int:
    identity = value.get("id")
    if not isinstance(identity, int) or not 0 <= identity <= MOST_ID:
        raise ProtocolError(f"{what} has no id")
    return identity


def _microseconds(value: object, default: int = 0) -> int:
    """An ISO 8601 time as whole microseconds since the epoch; ``default`` where there is none."""
    if not isinstance(value, str):
        return default
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return default
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)
