"""``pslg weights``: what weights there are, where they lie, and whether they are what they should be."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from backend.pipeline.weights import REGISTRY, WeightEntry, how_to_get, locate, weights_folder
from backend.pipeline.weights.records import read_record, record, sha256_of
from dataset_tools.errors import WeightsError
from dataset_tools.progress import Bar

_NAMES = click.Choice(list(REGISTRY))


@click.group()
def weights() -> None:
    """List, fetch and check weight files.

    Files that are not shipped lie in the folder PSLG_WEIGHTS (default ~/.cache/pslg/weights).
    """


@weights.command("list")
def list_weights() -> None:
    """List all weights with size, licence, and whether they are here."""
    click.echo(f"weights folder: {weights_folder()}\n")
    for entry in REGISTRY.values():
        here = entry.path.exists()
        size = _size_of(entry.path) if here else entry.size
        click.echo(
            f"{entry.name:24}{'here' if here else 'missing':9}"
            f"{'size unknown' if size is None else f'{size / 1e6:,.1f} MB':>14}  {entry.licence}"
        )
        click.echo(f"{'':24}{entry.description}")
        click.echo(f"{'':24}{entry.path}")
        if not here:
            click.echo(f"{'':24}{how_to_get(entry.name)}")


@weights.command()
@click.argument("names", nargs=-1, required=True, type=_NAMES)
def download(names: tuple[str, ...]) -> None:
    """Download weights by their names; an interrupted download goes on where it stopped."""
    from backend.pipeline.weights.downloads import download as fetch

    for name in names:
        entry = REGISTRY[name]
        if entry.path.exists():
            click.echo(f"{name} is already at {entry.path}")
            continue
        with Bar(desc=name, unit="B", unit_scale=True, unit_divisor=1000, total=entry.size) as bar:

            def show(done: int, total: int | None, bar: Bar = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            path = fetch(entry, show)
        checked = "sha256 as recorded" if entry.sha256 else "no sha256 is published for it: not verified"
        click.echo(f"{name} is at {path} ({checked})")


@weights.command()
@click.argument("names", nargs=-1, type=_NAMES)
def verify(names: tuple[str, ...]) -> None:
    """Hash weight files and compare with the recorded sha256 (default: all that are here).

    The hash is recorded beside the file, so that the model version need not read it again. Exit status 1 if a file is
    not what it should be.
    """
    failed = []
    for name in names or [entry.name for entry in REGISTRY.values() if entry.path.exists()]:
        entry = REGISTRY[name]
        try:
            click.echo(f"{name}: {_verify(entry)}")
        except WeightsError as error:
            click.echo(f"{name}: {error}", err=True)
            failed.append(name)
    if failed:
        raise WeightsError(f"not as they should be: {', '.join(failed)}")


@weights.command()
@click.argument("name")
def path(name: str) -> None:
    """Print where the weights NAME lie (or a file of one's own); exit status 1 if nothing is there."""
    place = locate(name)
    if not place.exists():
        raise WeightsError(f"nothing at {place}: {how_to_get(name)}")
    click.echo(place)


@weights.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--as", "name", type=_NAMES, help="Copy it to the place of these registered weights.")
def add(file: Path, name: str | None) -> None:
    """Register a weight file (or folder) of one's own: say what it holds, hash it once, record the hash beside it.

    A config then names it by its path (weights: /data/mine.pth), or by the registered name with --as.
    """
    from backend.pipeline.weights.kinds import checkpoint_kind

    kind = checkpoint_kind(file)
    if name is not None:
        file = _copy(file, REGISTRY[name])
    digest = _record(file)
    click.echo(f"{file}\n  holds:  {kind}\n  sha256: {digest}")
    if name is None:
        click.echo(f"  in a pipeline config:  weights: {file.resolve()}")


def _copy(file: Path, entry: WeightEntry) -> Path:
    target = entry.path
    if target.exists():
        raise WeightsError(f"{entry.name} already has a file at {target}; remove that first")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if file.is_dir():
        shutil.copytree(file, part, dirs_exist_ok=True)
    else:
        shutil.copyfile(file, part)
    part.replace(target)
    return target


def _verify(entry: WeightEntry) -> str:
    place = entry.path
    if not place.exists():
        raise WeightsError(f"nothing at {place}: {how_to_get(entry.name)}")
    shipped = read_record(place) if entry.shipped else None
    expected = shipped.sha256 if shipped else entry.sha256
    if expected is None:
        digest = _record(place)
        return f"no sha256 is published for it; this file's is {digest} (recorded)"
    with _bar(place) as bar:
        digest = sha256_of(place, bar.update)
    if digest != expected:
        raise WeightsError(f"{place} has sha256 {digest}, recorded is {expected}; fetch it again")
    if not entry.shipped:
        record(place)
    return f"sha256 as recorded ({place})"


def _record(place: Path) -> str:
    with _bar(place) as bar:
        return record(place, progress=bar.update)


def _bar(place: Path) -> Bar:
    size = _size_of(place)
    return Bar(
        desc=place.name,
        total=size,
        unit="B",
        unit_scale=True,
        unit_divisor=1000,
        leave=False,
        disable=size < 50_000_000,
    )


def _size_of(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())
