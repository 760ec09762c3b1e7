"""``pslg dataset export``, ``import``, ``split`` and ``propose``: from one form of a dataset to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dataset_tools.commands.options import (
    FORMAT,
    MAP_KINDS,
    PATH,
    counted,
    open_samples,
    parse_shares,
    source_options,
    told,
)
from dataset_tools.errors import DatasetError
from dataset_tools.formats import FORMATS, WRITTEN
from dataset_tools.progress import progress_bar
from dataset_tools.shared_options import finish, simplify_option


@click.command("export")
@click.argument("source")
@click.argument("destination", type=PATH)
@click.option(
    "--format",
    "name",
    type=click.Choice([*WRITTEN, *MAP_KINDS]),
    default="refer",
    show_default=True,
    help="Format to write; gpkg, geojson and cog are files for a GIS.",
)
@click.option(
    "--refs",
    type=click.Choice(["single", "grouped"]),
    default="single",
    show_default=True,
    help="For refer: one sentence per ref, as in RRSIS-D, or those of one object together.",
)
@click.option("--polygons", is_flag=True, help="For coco: polygons, not run-length codes; holes are filled.")
@click.option("--boxes-as-masks", is_flag=True, help="Fill the boxes of COCO objects that have no mask.")
@click.option("--tiles", type=PATH, help="For map formats: the folder of the tiles that were labelled (tiles.jsonl).")
@simplify_option
@click.option(
    "--predictions",
    is_flag=True,
    help="For map formats: tasks that nobody has annotated give their newest prediction (origin: predicted).",
)
@click.option("--model-version", metavar="VERSION", help="With --predictions: only those of this version.")
@click.option("--split", is_flag=True, help="Deal train/val/test by scene; records that have a split keep it.")
@click.option("--split-from", type=PATH, help="Earlier version of the dataset, whose splits must not change.")
@click.option("--shares", default="0.7,0.1,0.2", show_default=True, help="Shares of train, val and test.")
@click.option("--seed", default=0, show_default=True, help="Seed of the dealing.")
@click.option(
    "--read-fully",
    is_flag=True,
    help="Only expressions that were read fully: no word guessed or passed over; objects of the others stay, wordless.",
)
@click.option("--licence", help="Goes into the dataset card.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION once everything is written.")
@click.option("--restart", is_flag=True, help="Forget an interrupted export instead of going on with it.")
@source_options
def export_command(
    source: str, destination: Path, name: str, refs: str, polygons: bool, tiles: Path | None, simplify: float,
    predictions: bool, model_version: str | None, split: bool, split_from: Path | None, shares: str, seed: int,
    read_fully: bool, licence: str | None, workers: int, overwrite: bool, restart: bool, **options: Any,
) -> None:  # fmt: skip
    """Write SOURCE as a dataset that the field's loaders read.

    \b
    pslg dataset export export.json rrsism --images uploads/ --split
    pslg dataset export http://localhost:8080 rrsism --project 3 --cache fetched/
    pslg dataset export scenes/ masks/ --format masks --workers 2
    pslg dataset export scenes/ detector/ --format yolo-seg --split
    pslg dataset export export.json ships.gpkg --format gpkg --tiles tiles/
    pslg dataset export http://localhost:8080 ships.gpkg --project 3 --format gpkg --predictions
    """
    if model_version is not None and not predictions:
        raise DatasetError("--model-version goes with --predictions")
    if name in MAP_KINDS:
        options |= {"predictions": predictions, "model_version": model_version}
        _export_map(source, destination, name, tiles, simplify, overwrite, options)
        return
    if tiles is not None or simplify or predictions:
        raise DatasetError(f"--tiles, --simplify and --predictions go with --format {', '.join(MAP_KINDS)}")
    from dataset_tools import sources
    from dataset_tools.export import export

    samples, problems = open_samples(source, options)
    if split or split_from:
        known = sources.known_splits(split_from) if split_from else None
        with progress_bar("looking for scenes") as progress:
            parts = sources.deal_splits(
                samples, shares=parse_shares(shares), seed=seed, known=known, keep=True, progress=progress
            )
        samples = sources.with_splits(samples, parts)
    problems.clear()
    not_read: dict[str, int] = {}
    if read_fully:
        samples = sources.read_fully(samples, not_read)
    details = {"licence": licence, "source": str(source), "command": "pslg dataset export"}
    if split or split_from:
        details["split_rule"] = f"by scene, stratified by category and mask size, shares {shares}, seed {seed}"
    holds_words = FORMATS[name].absent or not FORMATS[name].objects
    with progress_bar("exporting") as progress:
        report = export(
            samples(), destination, name,
            workers=workers, overwrite=overwrite, restart=restart, details=details, progress=progress,
            reasons=lambda: told(problems, wordless=holds_words),
            options={key: True for key, on in (("grouped", refs == "grouped"), ("polygons", polygons)) if on},
        )  # fmt: skip
    click.echo(f"{destination}: {report.images:,} images, {report.records:,} records, format {name}")
    if not_read:
        click.echo(f"{sum(not_read.values()):,} expressions were not read fully and stay behind (--read-fully)")
    if report.without_target:
        click.echo(f"{report.without_target:,} expressions for absent objects stay behind: {name} cannot hold them")
    if report.wordless:
        click.echo(f"{report.wordless:,} objects without words stay behind: {name} holds expressions only")
    if report.boxes:
        click.echo(f"{report.boxes:,} objects have a box and no mask: kept as boxes")
    if report.loss:
        click.echo(f"{name}: {report.loss}")
    if report.resumed:
        click.echo(f"{report.resumed:,} images were there from an interrupted export")
    left_out = [f"{file}: {why}" for file, why in report.failed] + told(problems, wordless=holds_words)
    if report.boxes_left:
        left_out.append(
            f"{report.boxes_left:,} objects have only a box, {name} cannot hold them: --boxes-as-masks fills them"
        )
    finish(left_out, recorded=True)


def _export_map(
    source: str, destination: Path, kind: str, tiles: Path | None, simplify: float, overwrite: bool,
    options: dict[str, Any],
) -> None:  # fmt: skip
    from dataset_tools.label_studio.annotations import PREDICTED
    from dataset_tools.maps import files
    from dataset_tools.maps.objects import TilePlaces, joined, objects_of

    samples, problems = open_samples(source, options)
    left_out: list[str] = []
    with progress_bar("placing") as progress:
        parts = list(objects_of(counted(samples(), progress), TilePlaces(tiles), left_out))
    left_out += told(problems, wordless=False)
    if not parts:
        raise DatasetError("no object could be placed on the map: " + "; ".join(left_out[:3] or ["there are none"]))
    objects = joined(parts)
    files.write(destination, objects, kind, simplify, overwrite=overwrite)
    predicted = sum(item.origin == PREDICTED for item in objects)
    click.echo(
        f"{destination}: {len(objects):,} objects from {len(parts):,} masks"
        + (f", {predicted:,} of them predicted and not looked at" if predicted else "")
    )
    finish(left_out)


@click.command("import")
@click.argument("source")
@click.argument("tasks", type=PATH)
@click.option(
    "--image-url",
    default="/data/local-files/?d={path}",
    show_default=True,
    help="What Label Studio loads; {name} is the file name, {path} the file's path.",
)
@click.option("--from-name", default="mask", show_default=True, help="Name of the BrushLabels tag.")
@click.option("--to-name", default="image", show_default=True, help="Name of the Image tag.")
@click.option("--model-version", default="imported", show_default=True, help="Of the predictions.")
@source_options
def import_command(
    source: str, tasks: Path, image_url: str, from_name: str, to_name: str, model_version: str, **options: Any
) -> None:
    """Write SOURCE as TASKS, a JSON file for Label Studio: one task per expression, its masks as a prediction.

    \b
    pslg dataset import rrsisd/ tasks.json --image-url "/data/local-files/?d=rrsisd/{name}"
    """
    from dataset_tools.label_studio.tasks import write_tasks

    samples, problems = open_samples(source, options)
    with progress_bar("reading") as progress:
        count = write_tasks(
            tasks, counted(samples(), progress), image_url,
            from_name=from_name, to_name=to_name, model_version=model_version,
        )  # fmt: skip
    click.echo(f"{tasks}: {count:,} tasks")
    finish(told(problems))


@click.command("split")
@click.argument("source")
@click.argument("destination", type=PATH)
@click.option("--format", "name", type=FORMAT, default="coco_jsonl", show_default=True, help="Format to write.")
@click.option("--shares", default="0.7,0.1,0.2", show_default=True, help="Shares of train, val and test.")
@click.option("--seed", default=0, show_default=True, help="Seed of the dealing.")
@click.option("--keep", is_flag=True, help="Records that have a split keep it.")
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION.")
@source_options
def split_command(
    source: str, destination: Path, name: str, shares: str, seed: int, keep: bool, overwrite: bool, **options: Any
) -> None:
    """Deal SOURCE into train, val and test by scene, stratified by category and mask size.

    \b
    pslg dataset split scenes/ split/ --shares 0.8,0.1,0.1
    """
    from dataset_tools import sources
    from dataset_tools.export import export

    samples, problems = open_samples(source, options)
    with progress_bar("looking for scenes") as progress:
        parts = sources.deal_splits(samples, shares=parse_shares(shares), seed=seed, keep=keep, progress=progress)
    problems.clear()
    rule = f"by scene, stratified by category and mask size, shares {shares}, seed {seed}"
    with progress_bar("writing") as progress:
        report = export(
            sources.with_splits(samples, parts)(), destination, name,
            overwrite=overwrite, details={"source": str(source), "split_rule": rule}, progress=progress,
            reasons=lambda: told(problems),
        )  # fmt: skip
    for part in dict.fromkeys(parts.values()):
        click.echo(f"{part}: {sum(value == part for value in parts.values()):,} images")
    finish([f"{file}: {why}" for file, why in report.failed] + told(problems), recorded=True)


@click.command("propose")
@click.argument("source")
@click.argument("destination", type=PATH)
@click.option("--format", "name", type=FORMAT, default="coco_jsonl", show_default=True, help="Format to write.")
@click.option("--per-object", default=3, show_default=True, help="Most expressions for one object.")
@click.option("--seed", default=0, show_default=True, help="Seed of the choice of wordings.")
@click.option("--only", is_flag=True, help="Write the proposals without the expressions that are there.")
@click.option("--image-url", default="/data/local-files/?d={path}", show_default=True, help="As for import.")
@source_options
def propose_command(
    source: str, destination: Path, name: str, per_object: int, seed: int, only: bool, image_url: str, **options: Any
) -> None:
    """Propose unambiguous expressions for the objects of SOURCE, marked as generated.

    DESTINATION is a dataset folder, or a .json file of tasks for Label Studio, where annotators judge them.

    \b
    pslg dataset propose scenes/ enlarged/
    pslg dataset propose scenes/ proposals.json --only
    """
    from dataset_tools.enlarging import enlarge
    from dataset_tools.export import export
    from dataset_tools.label_studio.tasks import write_tasks

    samples, problems = open_samples(source, options)
    left_out: list[str] = []
    enlarged = enlarge(
        samples(),
        keep=not only,
        per_object=per_object,
        seed=seed,
        left_out=lambda file, why: left_out.append(f"{file}: {why}"),
    )
    with progress_bar("proposing") as progress:
        if destination.suffix == ".json":
            count = write_tasks(destination, counted(enlarged, progress), image_url, model_version="proposals")
            click.echo(f"{destination}: {count:,} tasks")
        else:
            report = export(
                enlarged, destination, name, details={"source": str(source)}, progress=progress,
                reasons=lambda: left_out + told(problems),
            )  # fmt: skip
            click.echo(f"{destination}: {report.images:,} images, {report.records:,} records")
            left_out += [f"{file}: {why}" for file, why in report.failed]
    finish(left_out + told(problems))
