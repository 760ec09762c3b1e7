"""``pslg warm``: pre-label and embed the images of many tasks before anybody opens them; may be stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from backend.settings import Settings
from dataset_tools.errors import ConfigError, PslgError


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
    from backend.batch.tasks import read_tasks
    from backend.batch.warming import project_tasks, warm_all
    from backend.labeling_configs import read_config
    from backend.server.protocol import Task
    from backend.server.service import LabelingService

    settings = Settings.load(**options)
    service = LabelingService(settings)
    try:
        service.start()
        if project is not None:
            xml, rows = project_tasks(service, project)
        else:
            assert tasks_file is not None  # noqa: S101 - checked above
            xml, rows = read_config(labeling_config), read_tasks(tasks_file)
        if push and (service.label_studio is None or project is None):
            raise ConfigError("--push needs --project, LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        if not service.model.wait():
            raise ConfigError(str(service.model.problem))
        tasks = [Task.model_validate(row) for row in rows]
        service.catch_up(project)
        config = service.labeling_config(xml, project)
        pipeline = service.models.pipeline(project)
        failures = warm_all(service, pipeline, tasks, config, push)
    finally:
        service.close()
    if failures:
        raise PslgError("\n".join([f"{len(failures)} of {len(tasks)} tasks failed:", *failures]))
