"""``pslg report``: how the labelling of a project goes, as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.settings import Settings
from dataset_tools.errors import ConfigError
from dataset_tools.label_studio.notes import NOTE, read_notes

if TYPE_CHECKING:
    from backend.learning.annotations.store import AnnotationRow
    from backend.learning.report.figures import Labelling
    from backend.learning.report.page import ModelHistory
    from dataset_tools.label_studio.note_counts import NoteCounts


@click.command()
@click.argument("project", type=int, required=False)
@click.option(
    "--export",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JSON export of Label Studio, in place of PROJECT.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The page to write.")
@click.option(
    "--manual-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=79.0,
    show_default=True,
    help="Time to outline one object by hand.",
)
@click.option(
    "--longest",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Most seconds per label that count; longer ones were pauses.",
)
@click.option("--hourly-cost", type=click.FloatRange(min=0), default=0.0, help="Price of an hour, in any currency.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as exactly one JSON object to stdout.")
@click.option("--config", help="Base config of the server. [default: compact]")
@click.option("--state-dir", type=click.Path(path_type=Path), help="State folder of the server.")
@click.option("--label-studio-url", help="Where Label Studio is, for the predictions.")
def report(
    project: int | None,
    export: Path | None,
    out: Path,
    manual_seconds: float,
    longest: float,
    hourly_cost: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a page about the labelling of Label Studio's PROJECT: labels, acceptance, clicks, time, quality, cost.

    Annotations are those that the server's webhooks brought (pslg sync fetches the rest); predictions are fetched from
    Label Studio when LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY are set.
    """
    if (project is None) == (export is None):
        raise click.UsageError("give either PROJECT or --export")
    from backend.learning.report.figures import Costs, labelling_of
    from backend.learning.report.page import page
    from dataset_tools import atomic
    from dataset_tools.label_studio.exports import read_tasks

    history = None
    if export is not None:
        title, source = export.stem, f"export {export.name}"
        found = labelling_of(_progress(read_tasks(export)))
    else:
        assert project is not None  # noqa: S101 - checked above
        title, source, found, history = _of_project(project, Settings.load(**options))
    if not found.annotations and not found.skipped:
        raise ConfigError(
            f"{source}: no annotation is known; "
            + ("submit some and export again" if export else f"run pslg sync {project} if Label Studio has some")
        )
    costs = Costs(manual_seconds, longest, hourly_cost)
    atomic.write_text(out, page(title, source, found, costs, history))
    if as_json:
        click.echo(json.dumps(found.figures(costs)))
        return
    saving = found.saving(costs)
    click.echo(
        f"{len(found.labels)} labels, {found.share('unchanged'):.0%} accepted unchanged,"
        f" {saving.saved_seconds / 3600:.1f} h saved against drawing by hand: {out}"
    )


def _of_project(project: int, settings: Settings) -> tuple[str, str, Labelling, ModelHistory]:
    """Title, source, figures and model history of a project of the server's state folder."""
    from backend.database import Database
    from backend.learning.annotations.store import AnnotationStore
    from backend.learning.report.figures import labelling_of
    from backend.learning.report.page import ModelHistory
    from backend.learning.versions.registry import ModelVersions
    from dataset_tools.label_studio.note_counts import NoteCounts

    database = Database.of_state(settings.state_dir)
    try:
        store = AnnotationStore(database)
        about = store.project(project)
        studio = settings.label_studio()
        pages = iter(()) if studio is None else studio.task_pages(project, complete=True)
        counts = NoteCounts()
        found = labelling_of(
            _joined(
                store.annotated_tasks(project), _counted(counts, _progress(task for page in pages for task in page))
            )
        )
        if studio is not None:
            found.notes = counts  # of all tasks, the unlabelled ones too
        versions = ModelVersions(database, settings.state_dir)
        history = ModelHistory(versions.rows(project), versions.history(project, Path(settings.config).stem))
    finally:
        database.close()
    source = f"project {project}, annotations of {settings.state_dir}"
    source += ", predictions of " + studio.url if studio is not None else ", no predictions (Label Studio not set)"
    return (about.title if about is not None and about.title else f"Project {project}"), source, found, history


def _joined(
    annotated: Iterable[list[AnnotationRow]], fetched: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Stored annotations with Label Studio's predictions, task by task; both come in the order of the task's id."""
    others = iter(fetched)
    other = next(others, None)
    for rows in annotated:
        while other is not None and other["id"] < rows[0].task:
            other = next(others, None)
        predictions = other.get("predictions") if other is not None and other["id"] == rows[0].task else None
        yield {
            "id": rows[0].task,
            "data": rows[0].data,
            "annotations": [row.body for row in rows],
            "predictions": predictions or [],
        }
    for _ in others:
        pass  # counted on their way


def _counted(counts: NoteCounts, tasks: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The tasks, all of them looked at: those that come after the last annotated one too."""
    for task in tasks:
        counts.add(read_notes((task.get("data") or {}).get(NOTE)))
        yield task


def _progress(tasks: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    from dataset_tools.progress import Bar

    counted: Iterable[Mapping[str, Any]] = Bar(tasks, desc="reading", unit="task")
    return counted
