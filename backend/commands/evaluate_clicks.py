"""``pslg evaluate-clicks``: NoC, the mean number of clicks until a mask is good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from backend.commands.options import data_option, limit_option, split_option
from dataset_tools.errors import DatasetError
from dataset_tools.shared_options import bands_option

THRESHOLDS = (0.80, 0.85)


@click.command("evaluate-clicks")
@data_option
@click.option("--config", default="compact", show_default=True, help="A shipped pipeline config or a YAML file.")
@split_option
@limit_option("objects (with --from-prelabel: expressions)")
@click.option("--cap", type=click.IntRange(min=1), default=20, show_default=True, help="Most clicks per object.")
@click.option(
    "--from-prelabel",
    is_flag=True,
    help="Count what pre-labels below 0.85 still cost, beside clicks alone on the same objects; needs expressions.",
)
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object to stdout.")
@bands_option
def evaluate_clicks(
    data: Path, config: str, split: str | None, limit: int | None, cap: int, from_prelabel: bool, as_json: bool
) -> None:
    """Count the clicks until the IoU reaches 0.80 and 0.85 (NoC).

    Every object gets its first click in its deepest point and each further one in the deepest point of the largest
    error region. An object that never gets there counts with the cap.
    """
    import json

    from backend.evaluation.clicks import evaluate_clicks as measure
    from backend.evaluation.clicks import evaluate_prelabels
    from backend.evaluation.expressions import read_questions
    from backend.pipeline import load_pipeline
    from dataset_tools import image_files
    from dataset_tools.labelled import read, spread
    from dataset_tools.progress import Bar

    about = {"data": data.name, "split": split, "limit": limit}
    if from_prelabel:
        asked = spread(read_questions(data, split), limit)
        pipeline = load_pipeline(config)
        with Bar(total=len(asked), desc=pipeline.model_version, unit="expression") as progress:
            found = evaluate_prelabels(pipeline, asked, image_files.read, THRESHOLDS, cap, progress.update)
        found = {**about, **found, "model_version": pipeline.model_version}
        found["convention"] = f"expressions about one object that got one mask; IoU at image size, >=; cap {cap}"
        click.echo(json.dumps(found) if as_json else _prelabel_table(found))
        return
    targets = [(image, item) for image in read(data, split) for item in image.objects]
    if not targets:
        raise DatasetError(f"{data} has no objects" + (f" in the split {split!r}" if split else ""))
    targets = spread(targets, limit)
    pipeline = load_pipeline(config)
    bar = Bar(targets, desc=pipeline.model_version, unit="object")
    report: dict[str, Any] = {**about}
    report |= measure(pipeline, bar, image_files.read, THRESHOLDS, cap)
    report |= {"convention": f"clicks only, no box; IoU at image size, >=; cap {cap}"}
    report |= {"model_version": pipeline.model_version}
    click.echo(json.dumps(report) if as_json else _table(report))


def _table(report: dict[str, Any]) -> str:
    lines = _rows({"all objects": report["total"], **report["by_category"]})
    lines += ["", f"convention: {report['convention']}", f"seconds per object: {report['seconds']:.3f}"]
    return "\n".join([*lines, _source(report)])


def _prelabel_table(report: dict[str, Any]) -> str:
    lines = _rows({"from the pre-label": report["from_prelabel"], "the same, clicks only": report["without_prelabel"]})
    lines += [
        "",
        f"{report['answered']} expressions got one mask: {report['good']} are good enough, {report['elsewhere']} are of"
        " another object (deleted, then clicked anew)",
    ]
    return "\n".join([*lines, f"convention: {report['convention']}", _source(report)])


def _rows(rows: dict[str, dict[str, Any]]) -> list[str]:
    names = [name for name in next(iter(rows.values())) if name != "n"]
    lines = [f"{'':22}{'n':>6}" + "".join(f"{name:>13}" for name in names)]
    for label, values in rows.items():
        shown = "".join(f"{'-':>13}" if values[name] is None else f"{values[name]:13.2f}" for name in names)
        lines.append(f"{label:22}{values['n']:>6}{shown}")
    return lines


def _source(report: dict[str, Any]) -> str:
    return f"model: {report['model_version']}, data: {report['data']}, split: {report['split'] or 'everything'}"
