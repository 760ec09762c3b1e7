"""``pslg sync``: fetch from Label Studio what its webhooks missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from backend.settings import Settings


@click.command()
@click.argument("project", type=int)
@click.option("--state-dir", type=click.Path(path_type=Path), help="State folder of the server.")
@click.option("--label-studio-url", help="Where Label Studio is, with http:// or https://.")
def sync(project: int, **options: Any) -> None:
    """Fetch the annotations of Label Studio's PROJECT that no webhook brought: imports, down time, deletions.

    The token is LABEL_STUDIO_API_KEY. May run beside the server; an interrupted sync goes on where it stopped.
    """
    from backend.database import Database
    from backend.learning.annotations.store import AnnotationStore
    from backend.learning.annotations.sync import sync_project
    from dataset_tools.progress import Bar

    settings = Settings.load(**options)
    client = settings.require_label_studio("pslg sync")
    store = AnnotationStore(Database.of_state(settings.state_dir))
    try:
        with Bar(desc=f"project {project}", unit="task") as bar:
            report = sync_project(store, client, project, settings.state_dir, bar.update)
        masks = store.accepted_masks(project)
    finally:
        store.database.close()
    click.echo(
        f"{report.tasks} tasks with {report.annotations} annotations; {report.deleted_tasks} tasks and"
        f" {report.deleted_annotations} annotations were deleted in Label Studio; {masks} accepted masks"
    )
