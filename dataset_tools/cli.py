"""``pslg dataset``: export, import, check, split, count, draw and tile datasets. Starts without torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from dataset_tools.errors import DatasetError
from dataset_tools.formats import FORMATS

_PATH = click.Path(path_type=Path)
_FORMAT = click.Choice(list(FORMATS))
PARTLY = 2
"""Exit status of a command that did its work but had to leave something out."""

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def dataset() -> None:
    """Export, import and check datasets (no torch needed).

    SOURCE is a dataset folder of any format, a JSON export of Label Studio, or the address of a Label Studio.

    Exit status: 0 done, 1 failed, 2 done but something was left out (or, for validate, errors were found).
    """


def _source_options(command: F) -> F:
    """Options of all commands that read SOURCE."""
    options = [
        click.option("--from", "source_format", type=_FORMAT, help="Format of SOURCE; recognised if not given."),
        click.option("--images", type=_PATH, help="Folder with the images of a Label Studio export."),
        click.option("--image-key", help="Key of the image in the task data."),
        click.option("--expression-key", default="expression", show_default=True, help="Key of the expression."),
        click.option(
            "--annotators",
            type=click.Choice(["ground-truth", "latest", "agreement", "all"]),
            default="ground-truth",
            show_default=True,
            help="Which annotation of a task counts.",
        ),
        click.option("--agreement", default=0.8, show_default=True, help="Least mean IoU for --annotators agreement."),
        click.option("--hash-annotators", metavar="KEY", help="Replace annotator ids by keyed hashes."),
        click.option("--project", type=int, help="Project id, if SOURCE is the address of a Label Studio."),
        click.option("--api-key", envvar="LABEL_STUDIO_API_KEY", help="Token [env: LABEL_STUDIO_API_KEY]."),
        click.option("--cache", type=_PATH, help="Where tasks and images from the API are kept (resumable)."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@dataset.command("export")
@click.argument("source")
@click.argument("destination", type=_PATH)
@click.option("--format", "name", type=_FORMAT, default="refer", show_default=True, help="Format to write.")
@click.option("--split", is_flag=True, help="Deal train/val/test by scene; records that have a split keep it.")
@click.option("--split-from", type=_PATH, help="Earlier version of the dataset, whose splits must not change.")
@click.option("--shares", default="0.7,0.1,0.2", show_default=True, help="Shares of train, val and test.")
@click.option("--seed", default=0, show_default=True, help="Seed of the dealing.")
@click.option("--licence", help="Goes into the dataset card.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION once everything is written.")
@click.option("--restart", is_flag=True, help="Forget an interrupted export instead of going on with it.")
@_source_options
def export_command(
    source: str, destination: Path, name: str, split: bool, split_from: Path | None, shares: str, seed: int,
    licence: str | None, workers: int, overwrite: bool, restart: bool, **options: Any,
) -> None:  # fmt: skip
    """Write SOURCE as a dataset that the field's loaders read.

    \b
    pslg dataset export export.json rrsism --images uploads/ --split
    pslg dataset export http://localhost:8080 rrsism --project 3 --cache fetched/
    pslg dataset export scenes/ masks/ --format masks --workers 2
    """
    from dataset_tools import sources
    from dataset_tools.export import export

    samples, problems = _open(source, options)
    if split or split_from:
        known = sources.known_splits(split_from) if split_from else None
        with _bar("looking for scenes") as progress:
            parts = sources.deal_splits(
                samples, shares=_shares(shares), seed=seed, known=known, keep=True, progress=progress
            )
        samples = sources.with_splits(samples, parts)
    problems.clear()
    details = {"licence": licence, "source": str(source), "command": "pslg dataset export"}
    if split or split_from:
        details["split_rule"] = f"by scene, stratified by category and mask size, shares {shares}, seed {seed}"
    with _bar("exporting") as progress:
        report = export(
            samples(), destination, name,
            workers=workers, overwrite=overwrite, restart=restart, details=details, progress=progress,
        )  # fmt: skip
    click.echo(f"{destination}: {report.images:,} images, {report.records:,} records, format {name}")
    if report.resumed:
        click.echo(f"{report.resumed:,} images were there from an interrupted export")
    left_out = [f"{file}: {why}" for file, why in report.failed] + [f"task {p.task}: {p.message}" for p in problems]
    _finish(left_out)


@dataset.command("import")
@click.argument("source")
@click.argument("tasks", type=_PATH)
@click.option(
    "--image-url",
    default="/data/local-files/?d={path}",
    show_default=True,
    help="What Label Studio loads; {name} is the file name, {path} the file's path.",
)
@click.option("--from-name", default="mask", show_default=True, help="Name of the BrushLabels tag.")
@click.option("--to-name", default="image", show_default=True, help="Name of the Image tag.")
@click.option("--model-version", default="imported", show_default=True, help="Of the predictions.")
@_source_options
def import_command(
    source: str, tasks: Path, image_url: str, from_name: str, to_name: str, model_version: str, **options: Any
) -> None:
    """Write SOURCE as TASKS, a JSON file for Label Studio: one task per expression, its masks as a prediction.

    \b
    pslg dataset import rrsisd/ tasks.json --image-url "/data/local-files/?d=rrsisd/{name}"
    """
    from dataset_tools.label_studio_tasks import write_tasks

    samples, problems = _open(source, options)
    with _bar("reading") as progress:
        count = write_tasks(
            tasks, _counted(samples(), progress), image_url,
            from_name=from_name, to_name=to_name, model_version=model_version,
        )  # fmt: skip
    click.echo(f"{tasks}: {count:,} tasks")
    _finish([f"task {problem.task}: {problem.message}" for problem in problems])


@dataset.command("validate")
@click.argument("folder", type=_PATH)
@click.option("--from", "source_format", type=_FORMAT, help="Format of FOLDER; recognised if not given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--html", type=_PATH, help="Write a page with the offending overlays.")
@click.option(
    "--fix", type=_PATH, metavar="FOLDER", help="Write a copy with everything mended that needs no judgement."
)
@click.option("--no-pixels", is_flag=True, help="Look at the index files only.")
@click.option("--strict", is_flag=True, help="Warnings count as errors for the exit status.")
def validate_command(
    folder: Path, source_format: str | None, as_json: bool, html: Path | None, fix: Path | None, no_pixels: bool,
    strict: bool,
) -> None:  # fmt: skip
    """Check a dataset for what public loaders get wrong silently. Exit status 2 if there are errors.

    \b
    pslg dataset validate rrsism --html report.html
    pslg dataset validate rrsism --fix rrsism_fixed
    """
    from dataset_tools import atomic, formats, validation_report
    from dataset_tools.export import export
    from dataset_tools.validate import fixed, validate

    with _bar("checking") as progress:
        report = validate(folder, source_format, pixels=not no_pixels, progress=progress)
    click.echo(json.dumps(validation_report.as_json(report)) if as_json else validation_report.as_text(report))
    if html is not None:
        atomic.write_text(html, validation_report.as_html(report))
        click.echo(f"page: {html}", err=True)
    if fix is not None:
        mended = export(fixed(formats.read(folder, report.format)), fix, report.format, details={"source": str(folder)})
        click.echo(f"fixed copy: {fix} ({mended.images:,} images, {mended.records:,} records)", err=True)
    if report.errors or (strict and report.findings):
        sys.exit(PARTLY)


@dataset.command("split")
@click.argument("source")
@click.argument("destination", type=_PATH)
@click.option("--format", "name", type=_FORMAT, default="coco_jsonl", show_default=True, help="Format to write.")
@click.option("--shares", default="0.7,0.1,0.2", show_default=True, help="Shares of train, val and test.")
@click.option("--seed", default=0, show_default=True, help="Seed of the dealing.")
@click.option("--keep", is_flag=True, help="Records that have a split keep it.")
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION.")
@_source_options
def split_command(
    source: str, destination: Path, name: str, shares: str, seed: int, keep: bool, overwrite: bool, **options: Any
) -> None:
    """Deal SOURCE into train, val and test by scene, stratified by category and mask size.

    \b
    pslg dataset split scenes/ split/ --shares 0.8,0.1,0.1
    """
    from dataset_tools import sources
    from dataset_tools.export import export

    samples, problems = _open(source, options)
    with _bar("looking for scenes") as progress:
        parts = sources.deal_splits(samples, shares=_shares(shares), seed=seed, keep=keep, progress=progress)
    problems.clear()
    rule = f"by scene, stratified by category and mask size, shares {shares}, seed {seed}"
    with _bar("writing") as progress:
        report = export(
            sources.with_splits(samples, parts)(), destination, name,
            overwrite=overwrite, details={"source": str(source), "split_rule": rule}, progress=progress,
        )  # fmt: skip
    for part in dict.fromkeys(parts.values()):
        click.echo(f"{part}: {sum(value == part for value in parts.values()):,} images")
    _finish([f"{file}: {why}" for file, why in report.failed] + [f"task {p.task}: {p.message}" for p in problems])


@dataset.command("stats")
@click.argument("source")
@click.option("--out", type=_PATH, help="Folder for index.html, the plots and statistics.json.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@_source_options
def stats_command(source: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Count SOURCE: categories, sizes, words, positions, annotators, what became of pre-labels.

    \b
    pslg dataset stats rrsism --out statistics/
    """
    from dataset_tools import statistics

    samples, problems = _open(source, options)
    with _bar("counting") as progress:
        found = statistics.collect(_counted(samples(), progress))
    summary = found.summary()
    if as_json:
        click.echo(json.dumps(summary))
    else:
        for key, value in summary.items():
            click.echo(f"{key.replace('_', ' ')}: {json.dumps(value) if isinstance(value, dict) else value}")
    if out is not None:
        statistics.write(out, Path(source).name, found)
        click.echo(f"page: {out / 'index.html'}", err=True)
    _finish([f"task {problem.task}: {problem.message}" for problem in problems])


@dataset.command("synth")
@click.argument("destination", type=_PATH)
@click.option("--count", default=16, show_default=True, help="Number of scenes.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first scene; the others count on.")
@click.option("--width", default=800, show_default=True)
@click.option("--height", default=600, show_default=True)
@click.option("--theme", help="One kind of scene only (airport, port, river, park, ...).")
def synth_command(destination: Path, count: int, seed: int, width: int, height: int, theme: str | None) -> None:
    """Draw scenes with true masks and expressions as a coco_jsonl folder.

    \b
    pslg dataset synth scenes/ --count 100
    """
    from dataset_tools import synthetic

    if destination.exists() and any(destination.iterdir()):
        raise DatasetError(f"{destination} is not empty; choose another folder")
    with _bar("drawing", count) as progress:
        scenes = (synthetic.draw_scene(seed + k, width, height, theme) for k in range(count))
        synthetic.write(destination, _counted(scenes, progress), seed, split=(0.7, 0.1, 0.2))
    click.echo(f"{destination}: {count:,} scenes")


@dataset.command("tile")
@click.argument("images", type=_PATH, nargs=-1, required=True)
@click.option("--out", type=_PATH, required=True, help="Folder for the tiles and tiles.jsonl.")
@click.option("--side", default=1024, show_default=True, help="Side of a tile in pixels.")
@click.option("--overlap", default=64, show_default=True, help="Least overlap of neighbours in pixels.")
def tile_command(images: tuple[Path, ...], out: Path, side: int, overlap: int) -> None:
    """Cut large images (GeoTIFF, world files) into tiles that browsers show; scene and transform are kept.

    \b
    pslg dataset tile city.tif --out tiles/ --side 1024
    """
    from dataset_tools import tiles

    failed = []
    with _bar("tiling", len(images)) as progress:
        for image in images:
            try:
                made = tiles.tile(image, out, side, overlap)
                click.echo(f"{image}: {len(made):,} tiles")
            except DatasetError as error:
                failed.append(f"{image}: {error}")
            progress(1)
    _finish(failed)


def _open(source: str, options: dict[str, Any]) -> tuple[Any, list[Any]]:
    from dataset_tools import sources
    from dataset_tools.label_studio import ImportRules, Problem

    problems: list[Problem] = []
    rules = ImportRules(
        image_key=options["image_key"],
        expression_key=options["expression_key"],
        annotators=options["annotators"],
        agreement=options["agreement"],
        images=options["images"],
        hash_annotators=options["hash_annotators"],
    )
    path = Path(source)
    if source.startswith(("http://", "https://")):
        path = _fetch(source, options, problems)
    return sources.open_source(path, options["source_format"], rules, problems), problems


def _fetch(url: str, options: dict[str, Any], problems: list[Any]) -> Path:
    from dataset_tools.label_studio_api import Client, fetch_images, fetch_tasks

    if options["project"] is None or not options["api_key"]:
        raise DatasetError(f"{url} is a Label Studio: pass --project and --api-key (or set LABEL_STUDIO_API_KEY)")
    folder = options["cache"] or Path(f"label_studio_project_{options['project']}")
    client = Client(url.rstrip("/"), options["api_key"])
    with _bar("fetching") as progress:
        fetch_tasks(client, options["project"], folder, progress=progress)
    if options["images"] is None:
        fetch_images(client, folder, options["image_key"], problems)
    return Path(folder)


def _shares(text: str) -> dict[str, float]:
    try:
        train, val, test = (float(word) for word in text.split(","))
    except ValueError:
        raise DatasetError(
            f"--shares takes three numbers for train, val and test, as 0.7,0.1,0.2; got {text!r}"
        ) from None
    return {"train": train, "val": val, "test": test}


T = TypeVar("T")


def _counted(items: Any, progress: Callable[[int], object]) -> Iterator[Any]:
    for item in items:
        yield item
        progress(1)


@contextmanager
def _bar(what: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(desc=what, total=total, unit=" images", file=sys.stderr, disable=None) as bar:
        yield bar.update


def _finish(left_out: list[str]) -> None:
    """Say what was left out, and let the exit status say so too."""
    for line in left_out[:20]:
        click.echo(f"left out: {line}", err=True)
    if len(left_out) > 20:
        click.echo(f"left out: {len(left_out) - 20:,} more (all are in dataset.json)", err=True)
    if left_out:
        sys.exit(PARTLY)
