"""``pslg dataset validate``, ``stats``, ``synth`` and ``tile``: looking at datasets, and making raw material."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from dataset_tools.commands.options import (
    PATH,
    SOURCE_FORMAT,
    counted,
    open_samples,
    source_options,
    told,
)
from dataset_tools.errors import DatasetError, PslgError
from dataset_tools.progress import progress_bar, tracked
from dataset_tools.shared_options import PARTLY, SceneSource, bands_option, finish


@click.command("validate")
@click.argument("folder", type=PATH)
@click.option("--from", "source_format", type=SOURCE_FORMAT, help="Format of FOLDER; recognised if not given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--html", type=PATH, help="Write a page with the offending overlays.")
@click.option("--fix", type=PATH, metavar="FOLDER", help="Write a copy with everything mended that needs no judgement.")
@click.option("--no-pixels", is_flag=True, help="Look at the index files only.")
@click.option("--strict", is_flag=True, help="Warnings count as errors for the exit status.")
@bands_option
def validate_command(
    folder: Path, source_format: str | None, as_json: bool, html: Path | None, fix: Path | None, no_pixels: bool,
    strict: bool,
) -> None:  # fmt: skip
    """Check a dataset for what public loaders get wrong silently. Exit status 2 if there are errors.

    \b
    pslg dataset validate rrsism --html report.html
    pslg dataset validate rrsism --fix rrsism_fixed
    """
    from dataset_tools import atomic, formats
    from dataset_tools.checks import report as validation_report
    from dataset_tools.checks.validate import fixed, validate
    from dataset_tools.export import export

    with progress_bar("checking") as progress:
        report = validate(folder, source_format, pixels=not no_pixels, progress=progress)
    click.echo(json.dumps(validation_report.as_json(report)) if as_json else validation_report.as_text(report))
    if html is not None:
        atomic.write_text(html, validation_report.as_html(report))
        click.echo(f"page: {html}", err=True)
    if fix is not None:
        sound = fixed(formats.read(folder, report.format, lambda _row: None))  # the findings say what is left out
        mended = export(sound, fix, report.format, details={"source": str(folder)})
        click.echo(f"fixed copy: {fix} ({mended.images:,} images, {mended.records:,} records)", err=True)
    if report.errors or (strict and report.findings):
        sys.exit(PARTLY)


@click.command("stats")
@click.argument("source")
@click.option("--out", type=PATH, help="Folder for index.html, the plots and statistics.json.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@source_options
def stats_command(source: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Count SOURCE: categories, sizes, words, positions, annotators, what became of pre-labels.

    \b
    pslg dataset stats rrsism --out statistics/
    """
    from dataset_tools import statistics

    samples, problems = open_samples(source, options)
    with progress_bar("counting") as progress:
        found = statistics.collect(counted(samples(), progress))
    summary = found.summary()
    if as_json:
        click.echo(json.dumps(summary))
    else:
        for key, value in summary.items():
            if value not in (None, {}):
                click.echo(f"{key.replace('_', ' ')}: {json.dumps(value) if isinstance(value, dict) else value}")
    if out is not None:
        statistics.write(out, Path(source).name, found)
        click.echo(f"page: {out / 'index.html'}", err=True)
    finish(told(problems))


@click.command("synth")
@click.argument("destination", type=PATH)
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
    with progress_bar("drawing", count) as progress:
        scenes = (synthetic.draw_scene(seed + k, width, height, theme) for k in range(count))
        synthetic.write(destination, counted(scenes, progress), seed, split=(0.7, 0.1, 0.2))
    click.echo(f"{destination}: {count:,} scenes")


@click.command("tile")
@click.argument("images", type=SceneSource(), nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Folder for the tiles and tiles.jsonl.")
@click.option("--side", default=1024, show_default=True, help="Side of a tile in pixels.")
@click.option("--overlap", default=64, show_default=True, help="Least overlap of neighbours in pixels.")
@click.option("--gsd", type=float, metavar="METRES", help="Resample to this ground sampling in metres a pixel.")
@bands_option
def tile_command(images: tuple[Path | str, ...], out: Path, side: int, overlap: int, gsd: float | None) -> None:
    """Cut scenes of any size (GeoTIFF, VRT, JPEG 2000, pictures) into tiles that browsers show.

    GeoTIFFs and JPEG 2000 may lie behind http(s) addresses: only the ranges that are looked at are fetched.

    Scene, window and georeference of every tile are kept in tiles.jsonl; a run that was stopped goes on where it was.

    \b
    pslg dataset tile city.tif --out tiles/ --side 1024
    pslg dataset tile sentinel.tif --out tiles/ --bands 4,3,2 --overlap 128
    pslg dataset tile https://example.org/ortho.tif --out tiles/ --gsd 0.3
    """
    from dataset_tools.maps import tiles

    failed = []
    for image in images:
        try:
            made = tiles.tile(
                image, out, side, overlap, gsd=gsd, track=tracked(str(image).rpartition("/")[2], " tiles"),
                note=lambda text: click.echo(text, err=True),
            )  # fmt: skip
            click.echo(f"{image}: {len(made):,} tiles")
        except PslgError as error:
            failed.append(str(error) if str(image) in str(error) else f"{image}: {error}")
    finish(failed)
