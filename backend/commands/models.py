"""``pslg models``: the versions that training made, and which of them serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from backend.settings import Settings
from dataset_tools.errors import ConfigError

if TYPE_CHECKING:
    from backend.learning.versions.jobs import TrainingJobs
    from backend.learning.versions.manifest import Manifest
    from backend.learning.versions.registry import ModelVersions

F = TypeVar("F", bound=Callable[..., Any])
_NUMBERS = ("held_out_old", "held_out_new", "replay_old", "replay_new")


def _state_options(command: F) -> F:
    command = click.option("--state-dir", type=click.Path(path_type=Path), help="State folder of the server.")(command)
    return click.option("--config", help="Base config of the server. [default: compact]")(command)


@click.group()
def models() -> None:
    """List, compare, promote and roll back the versions that were trained on projects' annotations.

    A running server switches by itself, without a restart.
    """


@models.command("list")
@click.option("--project", type=int, help="Only this project's.")
@_state_options
def list_models(project: int | None, **options: Any) -> None:
    """List versions with the gate's numbers (mean IoU, old -> new), and the training jobs that are not finished."""
    with _registry(options) as (settings, versions, jobs):
        for row in versions.rows(project):
            made = row.manifest
            click.echo(
                f"{made.version:24}{row.status:10}project {made.project:<5}{_when(row.created_at)}  "
                f"held-out {_pair(made, 'held_out')}{_counted(made, 'objects', 'images')}  "
                f"replay {_pair(made, 'replay')}{_counted(made, 'replay_expressions')}  "
                f"{len(made.training_keys)} images"
            )
            click.echo(f"    {made.reason}")
            if made.gate.get("advice"):
                click.echo(f"    what would help: {made.gate['advice']}")
        if not versions.rows(project):
            click.echo(f"no versions in {versions.folder}: pslg train project PROJECT makes one")
        for job in jobs.jobs(project):
            if not job.finished:
                click.echo(
                    f"job {job.id} of project {job.project}: {job.state}, {job.progress:.0%}, {job.message or 'waits'}"
                )
            elif job.state != "done" and time.time() - job.requested_at < 7 * 86400:
                click.echo(f"job {job.id} of project {job.project}: {job.state}: {job.message}")
        click.echo(f"state folder: {settings.state_dir}")


@models.command()
@click.argument("version")
@click.option("--project", type=int, help="Needed if several projects have a version of this name.")
@_state_options
def show(version: str, project: int | None, **options: Any) -> None:
    """Show what a version was made of, whether its files are whole, and how to make it again."""
    with _registry(options) as (settings, versions, _):
        row = versions.row(version, project)
        made = row.manifest
        versions.verify(version, project)
        click.echo(f"{version}  {row.status}, project {made.project}, made {_when(row.created_at)} by job {made.job}")
        click.echo(f"  verdict:  {made.reason}")
        if made.gate.get("advice"):
            click.echo(f"  what would help: {made.gate['advice']}")
        for name, value in made.gate.items():
            if name in ("reason", "advice", "promoted"):
                continue
            click.echo(f"  {name}: {value:.4f}" if isinstance(value, float) else f"  {name}: {value}")
        click.echo(f"  parent:   {made.parent} (compared with)\n  base:     {made.base} (trained from)")
        click.echo(f"  options:  {', '.join(f'{key}={value}' for key, value in made.options.items())}")
        click.echo(f"  replay:   {made.replay}")
        click.echo(f"  folder:   {versions.path(version)} (files are as recorded)")
        for name, digest in made.files.items():
            click.echo(f"    {digest}  {name}")
        click.echo(f"  training images ({len(made.training_keys)}), kept in {settings.state.images}:")
        for key in made.training_keys:
            click.echo(f"    {key}")
        click.echo("  to make it again, on the same annotations:")
        click.echo(f"    pslg train project {made.project} --like {version}")
        for promotion in versions.history(made.project, made.config):
            if promotion.version == version:
                click.echo(f"  promoted {_when(promotion.promoted_at)}: {promotion.reason}")


@models.command()
@click.argument("version")
@click.option("--project", type=int, help="Needed if several projects have a version of this name.")
@_state_options
def promote(version: str, project: int | None, **options: Any) -> None:
    """Let VERSION serve its project, whatever the gate said."""
    with _registry(options) as (_, versions, _jobs):
        versions.promote(version, "promoted by the user", project)
        click.echo(f"{version} serves project {versions.row(version, project).manifest.project} from now on")


@models.command()
@click.argument("project", type=int)
@click.option("--delete-predictions", is_flag=True, help="Remove what the version left in Label Studio too.")
@click.option("--label-studio-url", help="Where Label Studio is, with http:// or https://.")
@_state_options
def rollback(project: int, delete_predictions: bool, **options: Any) -> None:
    """Return to the version that served PROJECT before.

    A running server drops what waits for the version that served, and pushes nothing of it any more. What annotators
    accepted or changed stays in any case.
    """
    with _registry(options) as (settings, versions, _):
        config = Path(settings.config).stem
        studio = settings.label_studio()
        if delete_predictions and studio is None:
            raise ConfigError("--delete-predictions asks Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        left = versions.active(project, config)
        version = versions.rollback(project, config, "rolled back by the user")
        click.echo(f"{version or f'the base version of {settings.config}'} serves project {project} from now on")
        if studio is None or left is None or not delete_predictions:
            click.echo(f"predictions of {left} stay in Label Studio; --delete-predictions removes them")
            return
        found = list(studio.predictions_of(project, left))
        for prediction in found:
            studio.delete_prediction(prediction)
        click.echo(f"{len(found)} predictions of {left} removed from Label Studio")


@models.command()
@click.argument("first")
@click.argument("second")
@click.option("--project", type=int, help="Needed if several projects have a version of this name.")
@_state_options
def compare(first: str, second: str, project: int | None, **options: Any) -> None:
    """Compare two versions: the numbers of their gates, options and training images."""
    with _registry(options) as (_, versions, _jobs):
        left, right = (versions.row(version, project).manifest for version in (first, second))
        click.echo(f"{'':16}{first:>28}{second:>28}")
        lines = [(name, left.gate.get(name), right.gate.get(name)) for name in _NUMBERS]
        lines += [("parent", left.parent, right.parent), ("base", left.base, right.base)]
        names = dict.fromkeys([*left.options, *right.options])
        lines += [(name, left.options.get(name), right.options.get(name)) for name in names]
        lines.append(("images", len(left.training_keys), len(right.training_keys)))
        for name, a, b in lines:
            click.echo(f"{name:16}{_shown(a):>28}{_shown(b):>28}{'' if a == b else '  *'}")
        common = set(left.training_keys) & set(right.training_keys)
        click.echo(f"{len(common)} training images in common")


@contextmanager
def _registry(options: dict[str, Any]) -> Iterator[tuple[Settings, ModelVersions, TrainingJobs]]:
    from backend.database import Database
    from backend.learning.versions.jobs import TrainingJobs
    from backend.learning.versions.registry import ModelVersions

    settings = Settings.load(**options)
    database = Database.of_state(settings.state_dir)
    try:
        yield settings, ModelVersions(database, settings.state_dir), TrainingJobs(database)
    finally:
        database.close()


def _pair(made: Manifest, which: str) -> str:
    return f"{_shown(made.gate.get(f'{which}_old'))} -> {_shown(made.gate.get(f'{which}_new'))}"


def _counted(made: Manifest, *names: str) -> str:
    """ " (12 objects, 6 images)": what a figure was measured on; empty for a version of an earlier release."""
    counts = [f"{made.gate[name]} {name.replace('_', ' ')}" for name in names if made.gate.get(name) is not None]
    return f" ({', '.join(counts)})" if counts else ""


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
