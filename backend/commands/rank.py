"""``pslg rank``: which task of a Label Studio project to label next."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.learning.ranking.strategies import STRATEGIES
from backend.settings import Settings
from dataset_tools.errors import ConfigError, PslgError

if TYPE_CHECKING:
    from backend.batch.ranking import RankedTask, TaskRanker
    from backend.server.editor.labeling_config import LabelingConfig
    from dataset_tools.label_studio.client import LabelStudio

logger = logging.getLogger(__name__)

FIELD = "pslg_rank"
_SHOWN = 20
_TAB = "Next to label"
# What the tab leaves out, so that the place and the prediction's score are on the screen without scrolling.
_HIDDEN = (
    "inner_id", "completed_at", "total_annotations", "cancelled_annotations", "annotators", "annotations_results",
    "annotations_ids", "predictions_results", "file_upload", "storage_filename", "created_at", "updated_at",
    "updated_by", "avg_lead_time", "draft_exists",
)  # fmt: skip


@click.command()
@click.argument("project", type=int)
@click.option("--strategy", type=click.Choice(STRATEGIES), default="mix", show_default=True, help="What comes first.")
@click.option("--limit", type=click.IntRange(min=1), help=f"Only the first N. [default: all; {_SHOWN} when printed]")
@click.option(
    "--write",
    "field",
    is_flag=False,
    flag_value=FIELD,
    metavar="[FIELD]",
    help=f"Write the places into this field of the tasks' data ({FIELD} if none is named) and make a tab sorted by it.",
)
@click.option("--print", "printed", is_flag=True, help="Print the order: the default without --write.")
@click.option(
    "--tab/--no-tab", default=True, show_default=True, help=f'With --write: keep the tab "{_TAB}" up to date.'
)
@click.option(
    "--scores/--no-scores",
    default=True,
    show_default=True,
    help="With --write: name the backend after its model version, else Label Studio shows no prediction scores.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides ties, and the strategy random.")
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object to stdout.")
@click.option("--config", help="Pipeline config. [default: compact]")
@click.option("--state-dir", type=click.Path(path_type=Path), help="State folder of the server.")
@click.option("--label-studio-url", help="Where Label Studio is, with http:// or https://.")
def rank(
    project: int,
    strategy: str,
    limit: int | None,
    field: str | None,
    printed: bool,
    tab: bool,
    scores: bool,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Order the tasks of Label Studio's PROJECT that have no annotation: the one to label next comes first.

    Pre-labels that the server has, or Label Studio stores, are used; the rest is computed, and goes on where it stopped
    when it is interrupted. Tasks that failed are listed with the reason; the exit status is then 1.
    """
    from backend.batch.ranking import TaskRanker
    from backend.learning.ranking.image_features import ImageFeatures, feature_segmenter
    from backend.server.service import LabelingService
    from dataset_tools.progress import Bar

    service = LabelingService(Settings.load(**options))
    try:
        studio = service.label_studio or service.settings.require_label_studio("pslg rank")
        about = studio.project(project)
        service.store.refresh()
        config = service.labeling_config(about["label_config"], project)
        _require_free(field, config)
        service.start()
        if not service.model.wait():
            raise ConfigError(str(service.model.problem))
        service.catch_up(project)
        pipeline = service.models.pipeline(project)
        features = ImageFeatures(service.store.database, feature_segmenter())
        ranker = TaskRanker(service, pipeline, config, features, strategy)
        with Bar(total=about.get("task_number"), desc=pipeline.model_version, unit="task") as bar:
            for done in ranker.add(studio.task_pages(project, complete=True)):
                bar.update(done)
        ranked = ranker.ranked(seed)
        chosen = ranked[:limit]
        changed = 0
        if field is not None:
            changed = _write(studio, project, field, chosen, about.get("task_number") or len(ranked))
            if tab:
                studio.put_tab(project, _TAB, _view(field))
            if scores and not studio.name_backend(project, pipeline.model_version):
                logger.warning(
                    "no connected backend serves %s: the column Prediction score may be empty", pipeline.model_version
                )
    finally:
        service.close()
    if as_json:
        click.echo(json.dumps(_report(project, strategy, pipeline.model_version, chosen, ranker)))
    elif printed or field is None:
        _print(chosen[: limit or _SHOWN], len(ranked))
    if field is not None and not as_json:
        click.echo(f"{len(chosen)} tasks have their place in {field!r}; {changed} tasks were changed")
    if ranker.failures:
        raise PslgError("\n".join([f"{len(ranker.failures)} tasks could not be ranked:", *ranker.failures]))


def _require_free(field: str | None, config: LabelingConfig) -> None:
    """Raise ConfigError for a field that holds something else, or that the Data Manager cannot show."""
    if field is None:
        return
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", field):
        raise ConfigError(f"--write {field!r}: a field's name has letters, digits and _ only, and begins with a letter")
    if field in (config.image_key, config.expression_key, "category"):
        raise ConfigError(f"--write {field}: the labeling config reads this field; choose another one, e.g. {FIELD}")


def _write(studio: LabelStudio, project: int, field: str, chosen: Sequence[RankedTask], total: int) -> int:
    """Put the places into Label Studio and take old ones off all other tasks; the number of tasks that changed.

    Places have leading zeros: the Data Manager sorts fields of the data as text unless a tab says otherwise. The tasks
    are read again, so that data that changed while they were ranked is not written over.
    """
    from dataset_tools.progress import Bar

    digits = max(4, len(str(len(chosen))))
    places = {item.id: f"{item.rank:0{digits}d}" for item in chosen}
    changed = 0
    for task in Bar(studio.tasks(project), desc=f"writing {field}", total=total, unit="task"):
        data = {key: value for key, value in task["data"].items() if key != field}
        if task["id"] in places:
            data[field] = places[task["id"]]
        if data != task["data"]:
            studio.set_task_data(task["id"], data)
            changed += 1
    return changed


def _view(field: str) -> dict[str, Any]:
    """A tab of the Data Manager: tasks with a place and without an annotation, in the order of the places."""
    waiting = {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0}
    placed = {"filter": f"filter:tasks:data.{field}", "operator": "empty", "type": "String", "value": False}
    return {
        "type": "list",
        "target": "tasks",
        "filters": {"conjunction": "and", "items": [waiting, placed]},
        "ordering": [f"tasks:data.{field}"],
        "hiddenColumns": {part: [f"tasks:{name}" for name in _HIDDEN] for part in ("explore", "labeling")},
    }


def _report(
    project: int, strategy: str, model_version: str, chosen: Sequence[RankedTask], ranker: TaskRanker
) -> dict[str, Any]:
    return {
        "project": project,
        "strategy": strategy,
        "model_version": model_version,
        "tasks": [
            {
                "rank": item.rank,
                "task": item.id,
                "score": item.score,
                "disagreement": round(item.disagreement, 4),
                "category": item.category,
            }
            for item in chosen
        ],
        "skipped": ranker.skipped,
        "failures": ranker.failures,
    }


def _print(chosen: Sequence[RankedTask], total: int) -> None:
    click.echo(f"{'rank':>5}{'task':>8}{'score':>8}{'disagreement':>14}  category")
    for item in chosen:
        score = "-" if item.score is None else f"{item.score:.3f}"
        click.echo(f"{item.rank:>5}{item.id:>8}{score:>8}{item.disagreement:>14.3f}  {item.category or '-'}")
    if len(chosen) < total:
        click.echo(f"... and {total - len(chosen)} more (--limit)")
