"""``pslg calibrate-score``: make the scores of a pipeline config probabilities, and say how far they can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from backend.commands.options import data_option, limit_option
from dataset_tools.errors import ConfigError
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
@click.option(
    "--objects",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Objects of each dataset that are clicked, spread evenly over it.",
)
@click.option(
    "--only",
    type=click.Choice(("answers", "clicks")),
    help="Fit the score of pre-labels or of clicks alone; the config's other numbers stay. [default: both]",
)
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
    objects: int,
    only: str | None,
    measure: str | None,
    accepted_iou: float,
    write: bool,
    as_json: bool,
) -> None:
    """Fit the probability that a mask is accepted unchanged: of pre-labels, and of what clicks and boxes suggest.

    One fit for all datasets together. It belongs to the weights: run it again, with --write, when they change.
    """
    from backend.evaluation import click_calibration, score_calibration
    from backend.evaluation.expressions import read_questions
    from backend.pipeline import load_pipeline
    from backend.pipeline.config import config_path
    from dataset_tools import atomic, labelled
    from dataset_tools.image_files import read
    from dataset_tools.progress import Bar

    pipeline = load_pipeline(config)
    fitted = pipeline.config.score
    if only is not None and fitted is None:
        raise ConfigError(f"the config {config} has no scores to keep; fit both (without --only {only})")
    folders = (data, *also)

    def observed(folder: Path, part: str) -> list[score_calibration.ObservedAnswer]:
        asked = labelled.about_whole_objects(read_questions(folder, part), whole=whole, min_side=min_side)
        asked = labelled.spread(asked, limit)
        with Bar(total=len(asked), unit="expression", desc=f"{pipeline.model_version}, {part}") as bar:
            return score_calibration.observe(pipeline, asked, read, bar.update)

    def clicked(folder: Path, part: str) -> list[click_calibration.ShownMask]:
        targets = labelled.whole_objects(labelled.read(folder, part), whole=whole, min_side=min_side)
        bar = Bar(labelled.spread(targets, objects), unit="object", desc=f"{pipeline.model_version}, {part}, clicks")
        return click_calibration.observe(pipeline, bar, read, accepted_iou)

    def measured(folder: Path, part: str) -> str:
        return part if len(folders) == 1 else f"{folder.name} {part}"

    figures = {}
    if only != "clicks":
        answers = [answer for folder in folders for answer in observed(folder, split)]
        refitted = score_calibration.fit(answers, accepted_iou)
        fitted = refitted if fitted is None else refitted.model_copy(update={"clicked": fitted.clicked})
        figures[f"{split}, geometric mean"] = score_calibration.scored(answers, None, accepted_iou)
        figures[f"{split}, cross-fitted"] = score_calibration.cross_fitted(answers, accepted_iou)
        for folder in folders if measure is not None else ():
            others = observed(folder, str(measure))
            part = measured(folder, str(measure))
            figures[f"{part}, geometric mean"] = score_calibration.scored(others, None, accepted_iou)
            figures[f"{part}, calibrated"] = score_calibration.scored(others, fitted, accepted_iou)
    assert fitted is not None  # noqa: S101 - fitted above, or there from the start
    if only != "answers":
        shown = [mask for folder in folders for mask in clicked(folder, split)]
        fitted = fitted.model_copy(update={"clicked": click_calibration.fit(shown, accepted_iou)})
        figures[f"{split}, predicted IoU"] = click_calibration.scored(shown, None, accepted_iou)
        figures[f"{split}, clicks cross-fitted"] = click_calibration.cross_fitted(shown, accepted_iou)
        for folder in folders if measure is not None else ():
            masks = clicked(folder, str(measure))
            figures[f"{measured(folder, str(measure))}, clicks calibrated"] = click_calibration.scored(
                masks, fitted.clicked, accepted_iou
            )
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
    click.echo(f"{'':38}{'n':>6}{'accepted':>10}{'mean':>8}{'ECE':>8}{'Brier':>8}{'AUC':>8}")
    for name, rows in figures.items():
        for of, row in rows.items():
            values = "".join(f"{value:8.3f}" for value in (row.mean, row.ece, row.brier, row.auc))
            click.echo(f"{f'{name}, {of}':38}{row.n:>6}{row.accepted:>10.3f}{values}")
    click.echo(f"\n{'written to' if write else 'for'} {path}:\n\n{text[text.rindex('score:') :]}", nl=False)
