"""``pslg state``: what a server keeps, backed up and put back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from backend.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
_PARTS = (
    ("database", "events, annotations, jobs, computed pre-labels; in a backup"),
    ("models", "trained versions; in a backup"),
    ("images", "images that trainings learnt from; in a backup"),
    ("embeddings", "made again when wanted"),
    ("features", "made again when wanted"),
    ("replay", "made again when wanted"),
)


def _state_dir(command: F) -> F:
    return click.option("--state-dir", type=click.Path(path_type=Path), help="State folder of the server.")(command)


@click.group()
def state() -> None:
    """What a server keeps: how large it is, a backup of it, and the backup put back."""


@state.command()
@_state_dir
def show(**options: Any) -> None:
    """Say how large each part of the state folder is, and which parts a backup holds."""
    folder = Settings.load(**options).state
    click.echo(f"{folder.root}:")
    for name, what in _PARTS:
        click.echo(f"{_size(getattr(folder, name)) / 1e6:12,.1f} MB  {name:12}{what}")


@state.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--without-images", is_flag=True, help="Leave out the images that trainings learnt from.")
@_state_dir
def backup(out: Path, without_images: bool, **options: Any) -> None:
    """Write what cannot be computed again to OUT, a new tar file or a folder that gets one named by the time.

    Servers and trainings may go on meanwhile. Not in it: weights that were downloaded, the settings, and Label Studio's
    own data.
    """
    from backend.state_backup import back_up

    settings = Settings.load(**options)
    if out.is_dir():
        out /= f"pslg-state-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar"
    made = back_up(settings.state, out, images=not without_images)
    click.echo(
        f"{out}: {made.bytes / 1e6:,.1f} MB, {made.events} events, {len(made.versions)} trained versions,"
        f" {len(made.files)} files"
    )


@state.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Move the state that is there aside.")
@_state_dir
def restore(file: Path, replace: bool, **options: Any) -> None:
    """Put the backup FILE in the place of the state folder; stop the server before.

    What happened in Label Studio since then is fetched with `pslg sync`, project by project.
    """
    from backend.state_backup import restore as put_back

    folder = Settings.load(**options).state
    made, aside = put_back(file, folder, replace=replace)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(made.made_at))
    click.echo(
        f"{folder.root} is as it was at {when}: {made.events} events, {len(made.versions)} trained versions;"
        " `pslg sync PROJECT` fetches what came since"
    )
    if aside is not None:
        click.echo(f"what was there before is in {aside}")


def _size(path: Path) -> int:
    """Bytes of a file and its write-ahead log, or of a folder from which files may be removed meanwhile."""
    files = path.rglob("*") if path.is_dir() else (path, path.with_name(f"{path.name}-wal"))
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total
