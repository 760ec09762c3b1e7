"""A file of Label Studio tasks: read, and written with predictions, ready to be imported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click

from backend.batch.engines import ENGINES
from backend.labeling_configs import read_config
from backend.server.protocol import Prediction
from backend.settings import Settings
from dataset_tools import atomic
from dataset_tools.errors import ConfigError, PslgError
from dataset_tools.label_studio.note_counts import NoteCounts
from dataset_tools.label_studio.notes import NOTE, answered

__all__ = ["prelabel_tasks", "read_tasks"]


def read_tasks(path: Path) -> list[dict[str, Any]]:
    """Tasks of a JSON file as Label Studio imports or exports it: with a ``data`` object each, or plain data.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path} must hold a list of tasks")
    return [row if "data" in row else {"data": row} for row in rows]


def prelabel_tasks(
    tasks: Path,
    labeling_config: str,
    out: Path,
    config: str,
    engine: str = "local",
    workers: int | None = None,
    *,
    predictions_only: bool = False,
) -> None:
    """Write ``tasks`` with one prediction each to ``out``, in their order, as Label Studio imports them.

    What an expression without an answer lacks stands in each task's field ``pslg_note``.
    Importing a file of tasks always makes new ones: for tasks that a project has already, which their ``id`` shows,
    ``predictions_only`` writes what is added to those.

    What was computed is kept beside ``out`` until all of it is there, so that an interrupted run goes on where it
    stopped, on whatever machines.

    Args:
        tasks: JSON file of tasks.
        labeling_config: a shipped one's name, or a file.
        out: JSON file to be written.
        config: pipeline config.
        engine: a key of ``ENGINES``.
        workers: of the engine ``ray``.
        predictions_only: write the predictions alone, each with the id of its task, as Label Studio's
            ``POST /api/projects/<id>/import/predictions`` takes them.

    Raises:
        ConfigError: tasks have no id though ``predictions_only`` needs it, tasks or labeling config cannot be read,
            or the models cannot be loaded.
        PslgError: some tasks failed; the others are in ``out``.
    """
    from dataset_tools.progress import Bar

    rows = read_tasks(tasks)
    known = [row for row in rows if row.get("id") is not None]
    if predictions_only and len(known) < len(rows):
        raise ConfigError(
            f"{len(rows) - len(known)} of the {len(rows)} tasks in {tasks} have no 'id': --predictions-only is for"
            " tasks exported from a project"
        )
    xml = read_config(labeling_config)
    path = Path(config)
    settings = Settings.load(config=str(path.resolve()) if path.is_file() else config)
    failures: list[tuple[int, str]] = []
    with ENGINES[engine](settings, xml, workers) as running:
        journal = _PartialOutput(out, running.version, xml)
        kept = {number: journal.get(row) for number, row in enumerate(rows)}
        predictions = {number: found for number, found in kept.items() if found is not None}
        missing = {number: row for number, row in enumerate(rows) if number not in predictions}
        with Bar(total=len(rows), initial=len(predictions), unit="task") as bar, journal:
            for answer in running.compute(missing):
                bar.update()
                if answer.prediction is None:
                    name = rows[answer.number].get("id", f"number {answer.number + 1}")
                    failures.append((answer.number, f"task {name}: {answer.failure}"))
                else:
                    predictions[answer.number] = answer.prediction, answer.note
                    journal.append(rows[answer.number], answer.prediction, answer.note)
    labelled: list[dict[str, Any]]
    if predictions_only:
        labelled = [{"task": rows[number]["id"], **predictions[number][0]} for number in sorted(predictions)]
    else:
        labelled = [_with_prediction(rows[number], *predictions[number]) for number in sorted(predictions)]
    atomic.write_text(out, json.dumps(labelled))
    if not failures:
        journal.remove()
    masks = sum(len(answered(prediction["result"])) for prediction, _ in predictions.values())
    counts = NoteCounts.of(note for _, note in predictions.values())
    click.echo("\n".join([f"{len(labelled)} tasks with {masks} regions are in {out}", *counts.lines()]))
    if predictions_only:
        click.echo(f"add them to their project: POST {out.name} to /api/projects/<id>/import/predictions")
    elif known:
        click.echo(
            f"{len(known)} tasks have the id of a task in a project: importing {out.name} there adds them a second"
            " time; --predictions-only writes what goes to the tasks that are there",
            err=True,
        )
    if failures:
        lines = [text for _, text in sorted(failures)]
        raise PslgError("\n".join([f"{len(failures)} of {len(rows)} tasks failed:", *lines]))


def _with_prediction(row: dict[str, Any], prediction: Prediction, note: str) -> dict[str, Any]:
    data = {key: value for key, value in row["data"].items() if key != NOTE}
    return {**row, "data": {**data, NOTE: note} if note else data, "predictions": [prediction]}


class _PartialOutput:
    """Predictions as they come, one JSON object per line beside the output; of other models or configs they count not.

    Args:
        out: the output; the journal is ``.<name>.partial`` beside it.
        version: model version of the predictions.
        labeling_config: whose labels they carry.
    """

    def __init__(self, out: Path, version: str, labeling_config: str) -> None:
        self._path = out.with_name(f".{out.name}.partial")
        self._prefix = f"{version}\n{labeling_config}\n"
        self._kept: dict[str, tuple[Prediction, str]] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._kept[entry["key"]] = entry["prediction"], str(entry.get("note", ""))
                except (ValueError, KeyError, TypeError):
                    break  # the line that was being written when the run was stopped

    def __enter__(self) -> _PartialOutput:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w", encoding="utf-8")
        for key, found in self._kept.items():
            self._write(key, *found)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, row: dict[str, Any]) -> tuple[Prediction, str] | None:
        """The prediction that an interrupted run made for a task, and its note."""
        return self._kept.get(self._key(row))

    def append(self, row: dict[str, Any], prediction: Prediction, note: str) -> None:
        """Keep a prediction and its note."""
        self._write(self._key(row), prediction, note)

    def remove(self) -> None:
        """Everything is in the output."""
        self._path.unlink(missing_ok=True)

    def _write(self, key: str, prediction: Prediction, note: str) -> None:
        self._file.write(json.dumps({"key": key, "prediction": prediction, "note": note}) + "\n")
        self._file.flush()

    def _key(self, row: dict[str, Any]) -> str:
        text = self._prefix + json.dumps(row, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
