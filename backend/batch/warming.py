"""Many tasks computed before anybody opens them, into the state folder of the server that will answer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

import click

from dataset_tools.errors import ConfigError, PslgError
from dataset_tools.label_studio.note_counts import NoteCounts
from dataset_tools.label_studio.notes import Note, answered

if TYPE_CHECKING:
    from backend.pipeline import PslgSam
    from backend.server.editor.labeling_config import LabelingConfig
    from backend.server.protocol import Prediction, Task
    from backend.server.service import LabelingService

__all__ = ["project_tasks", "warm_all"]


def project_tasks(service: LabelingService, project: int) -> tuple[str, list[dict[str, Any]]]:
    """The labeling config and the tasks of a Label Studio project; raises ConfigError without its address and token."""
    if service.label_studio is None:
        raise ConfigError("--project needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
    label_config = service.label_studio.call("GET", f"/api/projects/{project}/")["label_config"]
    return str(label_config), list(service.label_studio.tasks(project))


def warm_all(
    service: LabelingService, pipeline: PslgSam, tasks: Sequence[Task], config: LabelingConfig, push: bool
) -> list[str]:
    """Pre-label and embed every task, with progress on the terminal; one line per task that failed.

    Args:
        service: the server's parts, its models loaded.
        pipeline: the models that serve the tasks' project.
        tasks: as Label Studio has them.
        config: the project's labeling config.
        push: store predictions in Label Studio for tasks that have none of this model.
    """
    from dataset_tools.progress import Bar

    failures: list[str] = []
    masks = abstained = pushed = 0
    counts = NoteCounts()
    with ThreadPoolExecutor(service.settings.prelabel_fetchers) as pool:
        running: dict[Future[tuple[Prediction, tuple[Note, ...], bool]], Task] = {
            pool.submit(_warm_one, service, pipeline, task, config, push): task for task in tasks
        }
        for future in Bar(as_completed(running), total=len(running), unit="task"):
            try:
                prediction, notes, was_pushed = future.result()
            except PslgError as error:
                failures.append(f"task {running[future].id}: {error}")
                continue
            objects = answered(prediction["result"])
            masks += len(objects)
            abstained += not objects
            counts.add(notes)
            pushed += was_pushed
    summary = (
        f"{len(tasks) - len(failures)} tasks warm: {masks} regions, {abstained} without a mask, {pushed} predictions"
        f" pushed; {service.embeddings.bytes_on_disk / 1e6:.0f} MB of embeddings in {service.embeddings.folder}"
    )
    click.echo("\n".join([summary, *counts.lines()]))
    return sorted(failures)


def _warm_one(
    service: LabelingService, pipeline: PslgSam, task: Task, config: LabelingConfig, push: bool
) -> tuple[Prediction, tuple[Note, ...], bool]:
    prediction, notes = service.prelabeler.warm(pipeline, task, config)
    service.prelabeler.notes.write(task, notes)
    if not push or task.id is None or service.label_studio is None:
        return prediction, notes, False
    if service.label_studio.has_prediction(task.id, prediction["model_version"]):
        return prediction, notes, False
    service.label_studio.add_prediction(task.id, prediction)
    return prediction, notes, True
