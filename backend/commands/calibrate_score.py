"""``pslg calibrate-score``: make the scores of a pipeline config probabilities, and say how far they can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from backend.commands.options import data_option, limit_option
from dataset_tools.shared_options import bands_option


@click.command(name="calibrate-score")
@data_option
@click.option(
    "--also", type=click.Path(path_type=Path), multiple=True, help="A further dataset to fit on with it; repeatable."
)
@click.option("--config", default="compact", show_default=True, help="A shipped pipeline config or a YAML file.")
@click.option("--split", default="val", show_default=True, help="What to fit on: data that trained neither network.")
@click.option("--whole", is_flag=True, help="Only expressions whose objects no border cuts, where the data says so.")
@click.option(
    "--min-side", type=click.FloatRange(min=0), default=0, help="Only objects at least so wide and high (px)."
)
@limit_option("expressions of each dataset")
@click.option("--measure", help="Another split of the data to measure the fitted scores on.")
@click.option(
    "--accepted-iou",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    default=0.85,
    show_default=True,
    help="IoU from which a mask counts as accepted unchanged.",
)
@click.option("--write", is_flag=True, help="Put the result into the config's file; without, it is only shown.")
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object to stdout.")
@bands_option
def calibrate_score(
    data: Path,
    also: tuple[Path, ...],
    config: str,
    split: str,
    whole: bool,
    min_side: float,
    limit: int | None,
    measure: str | None,
    accepted_iou: float,
    write: bool,
    as_json: bool,
) -> None:
    """Fit the probability that a pre-label is accepted unchanged; one fit for all datasets together."""
    from backend.evaluation import score_calibration
    from backend.evaluation.expressions import read_questions
    from backend.pipeline import load_pipeline
    from backend.pipeline.config import config_path
    from dataset_tools import atomic
    from dataset_tools.image_files import read
    from dataset_tools.labelled import about_whole_objects, spread
    from dataset_tools.progress import Bar

    pipeline = load_pipeline(config)
    folders = (data, *also)

    def observed(folder: Path, part: str) -> list[score_calibration.ObservedAnswer]:
        asked = about_whole_objects(read_questions(folder, part), whole=whole, min_side=min_side)
        asked = spread(asked, limit)
        with Bar(total=len(asked), unit="expression", desc=f"{pipeline.model_version}, {part}") as bar:
            return score_calibration.observe(pipeline, asked, read, bar.update)

    answers = [answer for folder in folders for answer in observed(folder, split)]
    fitted = score_calibration.fit(answers, accepted_iou)
    figures = {
        f"{split}, geometric mean": score_calibration.scored(answers, None, accepted_iou),
        f"{split}, cross-fitted": score_calibration.cross_fitted(answers, accepted_iou),
    }
    if measure is not None:
        for folder in folders:
            others = observed(folder, measure)
            part = measure if len(folders) == 1 else f"{folder.name} {measure}"
            figures[f"{part}, geometric mean"] = score_calibration.scored(others, None, accepted_iou)
            figures[f"{part}, calibrated"] = score_calibration.scored(others, fitted, accepted_iou)
    path = config_path(config)
    text = score_calibration.with_score(path.read_text(encoding="utf-8"), fitted)
    if write:
        atomic.write_text(path, text)
    if as_json:
        report: dict[str, Any] = {
            "data": " + ".join(folder.name for folder in folders),
            "split": split,
            "model_version": pipeline.model_version,
            "score": fitted.model_dump(),
            "reliability": {
                name: {of: value.as_json() for of, value in rows.items()} for name, rows in figures.items()
            },
        }
        click.echo(json.dumps(report))
        return
    click.echo(f"{'':34}{'n':>6}{'accepted':>10}{'mean':>8}{'ECE':>8}{'Brier':>8}{'AUC':>8}")
    for name, rows in figures.items():
        for of, row in rows.items():
            values = "".join(f"{value:8.3f}" for value in (row.mean, row.ece, row.brier, row.auc))
            click.echo(f"{f'{name}, {of}':34}{row.n:>6}{row.accepted:>10.3f}{values}")
    click.echo(f"\n{'written to' if write else 'for'} {path}:\n\n{text[text.rindex('score:') :]}", nl=False)
