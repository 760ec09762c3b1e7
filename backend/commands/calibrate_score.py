"""``pslg calibrate-score``: make the scores of a pipeline config probabilities, and say how far they can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from backend.commands.options import data_option
from dataset_tools.bands_option import bands_option


@click.command(name="calibrate-score")
@data_option
@click.option("--config", default="compact", show_default=True, help="A shipped pipeline config or a YAML file.")
@click.option("--split", default="val", show_default=True, help="What to fit on: data that trained neither network.")
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
    data: Path, config: str, split: str, measure: str | None, accepted_iou: float, write: bool, as_json: bool
) -> None:
    """Fit the probability that a pre-label is accepted unchanged."""
    from tqdm import tqdm

    from backend.evaluation import score_calibration
    from backend.evaluation.expressions import read_questions
    from backend.pipeline import load_pipeline
    from backend.pipeline.config import config_path
    from dataset_tools import atomic
    from dataset_tools.image_files import read

    pipeline = load_pipeline(config)

    def observed(part: str) -> list[score_calibration.ObservedAnswer]:
        asked = read_questions(data, part)
        with tqdm(total=len(asked), unit="expression", desc=f"{pipeline.model_version}, {part}") as bar:
            return score_calibration.observe(pipeline, asked, read, bar.update)

    answers = observed(split)
    fitted = score_calibration.fit(answers, accepted_iou)
    figures = {
        f"{split}, geometric mean": score_calibration.scored(answers, None, accepted_iou),
        f"{split}, cross-fitted": score_calibration.cross_fitted(answers, accepted_iou),
    }
    if measure is not None:
        others = observed(measure)
        figures[f"{measure}, geometric mean"] = score_calibration.scored(others, None, accepted_iou)
        figures[f"{measure}, calibrated"] = score_calibration.scored(others, fitted, accepted_iou)
    path = config_path(config)
    text = score_calibration.with_score(path.read_text(encoding="utf-8"), fitted)
    if write:
        atomic.write_text(path, text)
    if as_json:
        report: dict[str, Any] = {
            "data": data.name,
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
