"""What webhooks missed, from Label Studio's API: imports, down time, hosts that get no webhooks, deletions.

The tasks are fetched page by page into ``<state>/sync/<project>``; a fetch that was interrupted goes on there. A task
or annotation that is missing from the pages is asked for once more before it counts as deleted: pages shift when tasks
are deleted meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.learning.annotations.changes import (
    AnnotationDeleted,
    Change,
    TaskDeleted,
    annotation_seen,
    project_seen,
    task_seen,
)
from backend.learning.annotations.store import AnnotationStore
from backend.state import StateFolder
from dataset_tools import atomic
from dataset_tools.errors import DatasetError, LabelStudioError, ProtocolError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.fetch import fetch_tasks, fetched_tasks

__all__ = ["SyncReport", "sync_project"]

_GOOD_FOR = 3600.0  # seconds after which the pages of an interrupted fetch are fetched anew
_CHUNK = 20  # tasks written in one transaction


@dataclass(frozen=True)
class SyncReport:
    """What a sync found: tasks and annotations in Label Studio, and how many of each it found deleted."""

    tasks: int
    annotations: int
    deleted_tasks: int
    deleted_annotations: int


def sync_project(
    store: AnnotationStore,
    studio: LabelStudio,
    project: int,
    state_dir: Path,
    progress: Callable[[int], object] = lambda _n: None,
) -> SyncReport:
    """Bring the store up to what Label Studio has now.

    Args:
        store: the annotations.
        studio: Label Studio.
        project: the project's id there.
        state_dir: the server's state folder.
        progress: called with the number of tasks after every page.

    Raises:
        LabelStudioError: the API fails or refuses; what was fetched is kept, and the next sync goes on there.
    """
    folder = StateFolder(state_dir).sync(project)
    with _explained():
        before = _begin(folder, store)
        about = project_seen(studio.project(project))
        fetch_tasks(studio, project, folder, progress=progress)
        seen: dict[int, set[int]] = {}
        for tasks in _chunks(fetched_tasks(folder)):
            store.apply_sync(project, [about, *_changes(tasks, seen)], before)
        deleted = list(_deleted(store, studio, project, seen, before))
        store.apply_sync(project, deleted, before)
    shutil.rmtree(folder)
    return SyncReport(
        tasks=len(seen),
        annotations=sum(map(len, seen.values())),
        deleted_tasks=sum(isinstance(change, TaskDeleted) for change in deleted),
        deleted_annotations=sum(isinstance(change, AnnotationDeleted) for change in deleted),
    )


def _begin(folder: Path, store: AnnotationStore) -> int:
    """Number of the last event before the fetch in ``folder`` began; an old fetch is thrown away."""
    marker = folder / "sync.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads(marker.read_text())
        if 0 <= time.time() - known["began_at"] < _GOOD_FOR and not _complete(folder):
            return int(known["event"])
    shutil.rmtree(folder, ignore_errors=True)
    event = store.events.last_id()
    atomic.write_text(marker, json.dumps({"event": event, "began_at": time.time()}))
    return event


def _complete(folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((folder / "fetch.json").read_text()).get("complete"))
    return False


def _chunks(tasks: Iterable[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for task in tasks:
        chunk.append(task)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    yield chunk


def _changes(tasks: Iterable[Mapping[str, Any]], seen: dict[int, set[int]]) -> list[Change]:
    """The state of tasks and their annotations; their ids go into ``seen``."""
    found: list[Change] = []
    for task in tasks:
        state = task_seen(task)
        annotations = [annotation_seen(item, state.id) for item in task.get("annotations") or []]
        seen[state.id] = {annotation.id for annotation in annotations}
        found += [state, *annotations]
    return found


def _deleted(
    store: AnnotationStore, studio: LabelStudio, project: int, seen: Mapping[int, set[int]], before: int
) -> Iterable[Change]:
    """What the store has and Label Studio has not, as changes; and what the pages had missed."""
    missing: dict[int, set[int]] = {}
    for task, annotation in store.known_before(project, before):
        if annotation not in seen.get(task, ()):
            missing.setdefault(task, set()).add(annotation)
    for task, gone in missing.items():
        found = studio.task(task)
        if found is None:
            yield TaskDeleted(task)
            continue
        again: dict[int, set[int]] = {}
        yield from _changes([found], again)
        yield from map(AnnotationDeleted, sorted(gone - again[task]))


@contextlib.contextmanager
def _explained() -> Any:
    try:
        yield
    except DatasetError as error:
        raise LabelStudioError(str(error)) from error
    except ProtocolError as error:
        raise LabelStudioError(f"Label Studio's answer is not understood: {error}") from error
