"""``pslg warm``: pre-label and embed the images of many tasks before anybody opens them; may be stopped and resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.labeling_configs import labeling_config_names, read_labeling_config
from backend.settings import Settings
from dataset_tools.errors import ConfigError, PslgError

if TYPE_CHECKING:
    from backend.pipeline import PslgSam
    from backend.server.editor.labeling_config import LabelingConfig
    from backend.server.protocol import Prediction, Task
    from backend.server.service import LabelingService

LOAD_TIMEOUT = 600.0


@click.command()
@click.option("--project", type=int, help="Take the tasks and the labeling config of this Label Studio project.")
@click.option(
    "--tasks",
    "tasks_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the tasks of a Label Studio JSON file.",
)
@click.option("--labeling-config", default="rrsisd", show_default=True, help="With --tasks: a shipped name or a file.")
@click.option("--push", is_flag=True, help="Store predictions in Label Studio for tasks that have none of this model.")
@click.option("--config", help="Pipeline config. [default: compact]")
@click.option("--state-dir", type=click.Path(path_type=Path), help="State folder of the server that is to be warm.")
@click.option("--label-studio-url", help="Where Label Studio is, with http:// or https://.")
def warm(project: int | None, tasks_file: Path | None, labeling_config: str, push: bool, **options: Any) -> None:
    """Pre-label and embed the images of many tasks, so that first clicks are warm.

    What was computed before is not computed again. With --push it is "Retrieve predictions" without a time limit.
    Tasks that failed are listed with the reason; the exit status is then 1.
    """
    if (project is None) == (tasks_file is None):
        raise click.UsageError("give either --project or --tasks")
    from backend.server.editor.labeling_config import parse_labeling_config
    from backend.server.protocol import Task
    from backend.server.service import LabelingService

    settings = Settings.load(**options)
    service = LabelingService(settings)
    try:
        service.start()
        if project is not None:
            xml, rows = _project(service, project)
        else:
            assert tasks_file is not None  # noqa: S101 - checked above
            xml, rows = read_config(labeling_config), read_tasks(tasks_file)
        if push and (service.label_studio is None or project is None):
            raise ConfigError("--push needs --project, LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        if not service.model.wait(LOAD_TIMEOUT):
            raise ConfigError(str(service.model.problem))
        tasks = [Task.model_validate(row) for row in rows]
        pipeline = service.models.pipeline(project)
        failures = _warm_all(service, pipeline, tasks, parse_labeling_config(xml), push)
    finally:
        service.close()
    if failures:
        raise PslgError("\n".join([f"{len(failures)} of {len(tasks)} tasks failed:", *failures]))


def _warm_all(
    service: LabelingService, pipeline: PslgSam, tasks: Sequence[Task], config: LabelingConfig, push: bool
) -> list[str]:
    """Warm every task with progress; one line per task that failed."""
    from tqdm import tqdm

    failures: list[str] = []
    masks = abstained = pushed = 0
    with ThreadPoolExecutor(service.settings.prelabel_fetchers) as pool:
        running: dict[Future[tuple[Prediction, bool]], Task] = {
            pool.submit(_warm_one, service, pipeline, task, config, push): task for task in tasks
        }
        for future in tqdm(as_completed(running), total=len(running), unit="task"):
            try:
                prediction, was_pushed = future.result()
            except PslgError as error:
                failures.append(f"task {running[future].id}: {error}")
                continue
            masks += len(prediction["result"])
            abstained += not prediction["result"]
            pushed += was_pushed
    click.echo(
        f"{len(tasks) - len(failures)} tasks warm: {masks} regions, {abstained} without a mask, {pushed} predictions"
        f" pushed; {service.embeddings.bytes_on_disk / 1e6:.0f} MB of embeddings in {service.embeddings.folder}"
    )
    return sorted(failures)


def _warm_one(
    service: LabelingService, pipeline: PslgSam, task: Task, config: LabelingConfig, push: bool
) -> tuple[Prediction, bool]:
    prediction = service.prelabeler.warm(pipeline, task, config)
    if not push or task.id is None or service.label_studio is None:
        return prediction, False
    if service.label_studio.has_prediction(task.id, prediction["model_version"]):
        return prediction, False
    service.label_studio.add_prediction(task.id, prediction)
    return prediction, True


def _project(service: LabelingService, project: int) -> tuple[str, list[dict[str, Any]]]:
    if service.label_studio is None:
        raise ConfigError("--project needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
    label_config = service.label_studio.call("GET", f"/api/projects/{project}/")["label_config"]
    return str(label_config), list(service.label_studio.tasks(project))


def read_config(name: str) -> str:
    """A labeling config: a shipped one by name, or a file; ConfigError if it is neither."""
    if name in labeling_config_names():
        return read_labeling_config(name)
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        names = ", ".join(labeling_config_names())
        raise ConfigError(f"no labeling config {name!r} ({error.strerror}); shipped ones: {names}") from error


def read_tasks(path: Path) -> list[dict[str, Any]]:
    """Tasks of a JSON file as Label Studio imports or exports it: with a ``data`` object each, or plain data."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path} must hold a list of tasks")
    return [row if "data" in row else {"data": row} for row in rows]
