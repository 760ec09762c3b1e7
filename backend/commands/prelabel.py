"""``pslg prelabel``: an image and an expression, or the tasks of a file -> masks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from backend.commands.options import MAX_PIXELS, PICTURES, write_picture
from dataset_tools.categories import category_named
from dataset_tools.shared_options import SceneSource, bands_option, simplify_option

if TYPE_CHECKING:
    from backend.pipeline import PslgSam
    from backend.pipeline.config import PipelineConfig
    from backend.pipeline.types import Image, Prelabels
    from dataset_tools.expressions.explanation import Explanation

_MAPS = {".gpkg": "gpkg", ".geojson": "geojson", ".tif": "cog"}
"""Suffixes of map files and their format (``dataset_tools.maps.files``)."""


def _explanation(pipeline: PslgSam, pixels: Image, expression: str) -> Explanation:
    """The grounder's own account, or how the words were read where it has none."""
    from dataset_tools.expressions.explanation import Explanation, in_words
    from dataset_tools.expressions.parser import parse

    account = getattr(pipeline.grounder, "explain", None)
    if account is not None:
        return cast("Explanation", account(pixels, expression))
    query = parse(expression, pipeline.grounder.known_categories or ())
    return Explanation((f"understood: {in_words(query)}", f"passed over: {', '.join(query.unread) or 'nothing'}"), {})


def _write_overlay(
    out: Path, pixels: Image, expression: str, found: Prelabels, explanation: Explanation | None = None
) -> None:
    from dataset_tools.overlays import OverlayObject, panel

    objects = [
        OverlayObject(
            item.mask, item.box, item.point, f"{category_named(item.category or '').display} {item.score:.2f}"
        )
        for item in found
    ]
    detail = "" if found.abstained is None else f"no mask: {found.abstained.code}"
    if found.abstained is not None:
        objects = [OverlayObject(box=candidate.box) for candidate in found.abstained.candidates[:10]]
    if explanation is not None:
        objects += [OverlayObject(box=box, label=str(number)) for number, box in explanation.boxes.items()]
    picture = panel(pixels, objects, expression, detail, size=max(600, min(1600, max(pixels.shape[:2]))))
    write_picture(out, picture)


def _as_json(found: Prelabels, expression: str, model_version: str, seconds: float) -> dict[str, Any]:
    from dataset_tools.masks import to_coco_rle

    abstained = None
    if found.abstained is not None:
        candidates = [
            {"box": list(candidate.box), "score": candidate.score, "category": candidate.category}
            for candidate in found.abstained.candidates
        ]
        abstained = {"code": found.abstained.code, "message": found.abstained.message, "candidates": candidates}
    return {
        "expression": expression,
        "prelabels": [
            {
                "category": item.category,
                "box": [float(value) for value in item.box],
                "point": None if item.point is None else [float(value) for value in item.point],
                "score": item.score,
                "scores": dict(item.scores),
                "mask": to_coco_rle(item.mask),
            }
            for item in found
        ],
        "abstained": abstained,
        "model_version": model_version,
        "seconds": round(seconds, 4),
    }


@click.command()
@click.argument("image", required=False, type=SceneSource())
@click.argument("expression", required=False)
@click.option("--config", default="compact", show_default=True, help="A shipped pipeline config or a YAML file.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the image with mask, box and point (.png, .jpg), or the objects on the map (.gpkg, .geojson, .tif);"
    " with --tasks the predictions (.json).",
)
@click.option("--gsd", type=float, metavar="METRES", help="With a map file: resample to this ground sampling first.")
@simplify_option
@click.option(
    "--explain",
    is_flag=True,
    help="Say how the words were read and how each candidate fared; --out then shows the candidates, numbered.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with COCO RLE masks to stdout.")
@bands_option
@click.option(
    "--foreground-points/--no-foreground-points", default=True, help="CFPG, as the config says or not at all."
)
@click.option("--boundary/--no-boundary", default=True, help="MBO, as the config says or not at all.")
@click.option(
    "--tasks",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Pre-label the tasks of a Label Studio JSON file instead; needs --out.",
)
@click.option("--labeling-config", default="rrsisd", show_default=True, help="With --tasks: a shipped name or a file.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="With --tasks: compute in this process, or on a Ray cluster (RAY_ADDRESS, else this machine).",
)
@click.option(
    "--workers", type=click.IntRange(1), help="With --engine ray: actors. [default: one per GPU, else by CPUs]"
)
@click.option(
    "--predictions-only",
    is_flag=True,
    help="With --tasks exported from a project: only the predictions, for /api/projects/ID/import/predictions;"
    " importing tasks would add them a second time.",
)
def prelabel(
    image: Path | str | None,
    expression: str | None,
    config: str,
    out: Path | None,
    explain: bool,
    gsd: float | None,
    simplify: float,
    as_json: bool,
    foreground_points: bool,
    boundary: bool,
    tasks: Path | None,
    labeling_config: str,
    engine: str,
    workers: int | None,
    predictions_only: bool,
) -> None:
    """Turn IMAGE and a referring EXPRESSION ("the left-most ship") into masks.

    With a map file as --out, IMAGE is a scene of any size, and may be the http(s) address of a GeoTIFF or JPEG 2000.

    Exit status 0 with a mask, 3 if the pipeline abstains (it says why).

    With --tasks all tasks of a file get a prediction each, written as Label Studio imports them; images are fetched as
    the server does. A run that was stopped goes on where it was.
    """
    if tasks is not None:
        if image is not None or out is None or not (foreground_points and boundary):
            raise click.UsageError("--tasks takes --out, --config and --labeling-config, no IMAGE and no ablation")
        from backend.batch.tasks import prelabel_tasks

        prelabel_tasks(tasks, labeling_config, out, config, engine, workers, predictions_only=predictions_only)
        return
    if image is None or expression is None:
        raise click.UsageError("give IMAGE and EXPRESSION, or --tasks")
    if engine != "local" or workers is not None or predictions_only:
        raise click.UsageError("--engine, --workers and --predictions-only go with --tasks")
    if out is not None and out.suffix.lower() not in (*PICTURES, *_MAPS):
        raise click.UsageError(f"--out {out.name!r} must end in {' or '.join((*PICTURES, *_MAPS))}")
    from backend.pipeline import load_config, load_pipeline
    from dataset_tools.image_files import read

    settings = load_config(config).ablated(foreground_points=foreground_points, boundary=boundary)
    if out is not None and out.suffix.lower() in _MAPS:
        _prelabel_scene(image, expression, out, settings, gsd, simplify)
        return
    if gsd is not None or simplify:
        raise click.UsageError(f"--gsd and --simplify go with --out {', '.join(_MAPS)}")
    if isinstance(image, str):
        raise click.UsageError(
            f"an address goes with --out {', '.join(_MAPS)}: of a scene the ranges needed are fetched"
        )
    pixels = read(image, max_pixels=MAX_PIXELS)
    pipeline = load_pipeline(settings)
    start = time.perf_counter()
    found = pipeline.prelabel(pixels, expression)
    seconds = time.perf_counter() - start
    explanation = _explanation(pipeline, pixels, expression) if explain else None
    if out is not None:
        _write_overlay(out, pixels, expression, found, explanation)
    for line in explanation.lines if explanation is not None else ():
        click.echo(line, err=as_json)
    _print(found, expression, pipeline.model_version, seconds, out, as_json)
    if found.abstained is not None:
        raise SystemExit(3)


def _prelabel_scene(
    image: Path | str, expression: str, out: Path, settings: PipelineConfig, gsd: float | None,
    simplify: float,
) -> None:  # fmt: skip
    """The objects of a scene of any size, as a map file; exit status 3 if there are none."""
    from backend.pipeline import load_pipeline
    from backend.pipeline.map_scene import prelabel_scene
    from dataset_tools.maps import files
    from dataset_tools.maps.scene import open_scene
    from dataset_tools.progress import tracked

    pipeline = load_pipeline(settings)
    journal = out.with_name(f"{out.name}.part.jsonl")
    start = time.perf_counter()
    with open_scene(image, gsd=gsd) as scene:
        for sentence in scene.notes:
            click.echo(f"{image}: {sentence}", err=True)
        found = prelabel_scene(
            pipeline, scene, expression, journal, track=lambda what, items: tracked(what, " parts")(items)
        )
    seconds = time.perf_counter() - start
    if found.abstention is not None:
        journal.unlink(missing_ok=True)
        click.echo(f"no mask ({found.abstention.code}): {found.abstention.message}")
        raise SystemExit(3)
    files.write(out, found.objects, _MAPS[out.suffix.lower()], simplify, overwrite=True)
    journal.unlink(missing_ok=True)
    count = len(found.objects)
    click.echo(f"{out}: {count:,} {'object' if count == 1 else 'objects'}, of {found.detections:,} detections")
    click.echo(f"{seconds:.1f} s, {pipeline.model_version}")


def _print(
    found: Prelabels, expression: str, model_version: str, seconds: float, out: Path | None, as_json: bool
) -> None:
    if as_json:
        click.echo(json.dumps(_as_json(found, expression, model_version, seconds)))
        return
    for item in found:
        name = category_named(item.category or "").display
        parts = ", ".join(f"{name} {value:.2f}" for name, value in item.scores.items())
        box = ", ".join(f"{value:.0f}" for value in item.box)
        click.echo(f"{name}: box ({box}), {int(item.mask.sum())} px, score {item.score:.2f} ({parts})")
    if found.abstained is not None:
        click.echo(f"no mask ({found.abstained.code}): {found.abstained.message}")
    click.echo(f"{seconds:.2f} s, {model_version}" + (f", {out}" if out is not None else ""))
