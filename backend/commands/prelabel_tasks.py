"""``pslg prelabel --tasks``: predictions for a file of Label Studio tasks, ready to be imported."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backend.commands.warm import LOAD_TIMEOUT, read_config, read_tasks
from backend.errors import ConfigError, PslgError
from backend.settings import Settings
from dataset_tools import atomic

if TYPE_CHECKING:
    from backend.server.labeling_config import LabelingConfig
    from backend.server.service import LabelingService


def prelabel_tasks(tasks: Path, labeling_config: str, out: Path, config: str) -> None:
    """Write ``tasks`` with one prediction each to ``out``, as Label Studio imports them.

    What was computed before (same image, expression and model) is taken from the state folder, so that an interrupted
    run goes on where it stopped.

    Raises:
        ConfigError: tasks or labeling config cannot be read, or the pipeline cannot be loaded.
        PslgError: some tasks failed; the others are in ``out``.
    """
    from backend.server.labeling_config import parse_labeling_config
    from backend.server.service import LabelingService

    rows = read_tasks(tasks)
    labels = parse_labeling_config(read_config(labeling_config))
    service = LabelingService(Settings.load(config=config))
    try:
        service.start()
        if not service.model.wait(LOAD_TIMEOUT):
            raise ConfigError(str(service.model.problem))
        predictions, failures = _predict_all(service, rows, labels)
    finally:
        service.close()
    done = [
        {**row, "predictions": [prediction]}
        for row, prediction in zip(rows, predictions, strict=True)
        if prediction is not None
    ]
    atomic.write_text(out, json.dumps(done))
    masks = sum(len(row["predictions"][0]["result"]) for row in done)
    click.echo(f"{len(done)} tasks with {masks} regions are in {out}")
    if failures:
        raise PslgError("\n".join([f"{len(failures)} of {len(rows)} tasks failed:", *failures]))


def _predict_all(
    service: LabelingService, rows: list[dict[str, Any]], labels: LabelingConfig
) -> tuple[list[Any], list[str]]:
    """A prediction per row, None where it failed, and one line per failure."""
    from tqdm import tqdm

    from backend.server.protocol import Task
    from backend.server.task_query import read_task

    pipeline = service.model.pipeline()
    predictions: list[Any] = [None] * len(rows)
    failures = []

    def predict(row: dict[str, Any]) -> Any:
        task = Task.model_validate(row)
        return service.prelabeler.answer(pipeline, read_task(task, labels), labels)

    with ThreadPoolExecutor(service.settings.prelabel_fetchers) as pool:
        running = {pool.submit(predict, row): index for index, row in enumerate(rows)}
        for future in tqdm(as_completed(running), total=len(rows), unit="task"):
            index = running[future]
            try:
                predictions[index] = future.result()
            except PslgError as error:
                failures.append((index, f"task {rows[index].get('id', f'number {index + 1}')}: {error}"))
    return predictions, [text for _, text in sorted(failures)]
