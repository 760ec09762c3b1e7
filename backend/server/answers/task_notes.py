"""Why expressions got no object: as notes for the annotator, in the prediction and in the task's data."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backend.pipeline.types import Prelabels
from backend.server.answers.background import JobPool, Priority
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.editor.prompts import TaskQuery, label_of
from backend.server.protocol import Region, Task
from dataset_tools.categories import category_named
from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.notes import NOTE, Note, note_lines
from dataset_tools.label_studio.regions import new_id

__all__ = ["BUSY", "NO_LABEL", "TaskNotes", "note_region", "notes_of"]

logger = logging.getLogger(__name__)

BUSY = "busy"
"""Reason of a note in place of a suggestion: too many clicks were waiting."""
NO_LABEL = "no-label"
"""Reason of a note: the labeling config has no label for what was found. The others are the pipeline's codes."""


def notes_of(query: TaskQuery, answers: Sequence[Prelabels], config: LabelingConfig) -> tuple[Note, ...]:
    """One note for each expression that was not answered, or whose objects the labeling config has no label for."""
    found: list[Note] = []
    for expression, answer in zip(query.expressions, answers, strict=True):
        if answer.abstained is not None:
            message = answer.abstained.message
            if answer.candidates:
                message += (
                    f" {len(answer.candidates)} candidates are shown: keep the one that is meant, delete the rest."
                )
            found.append(Note(expression, answer.abstained.code, message))
        strange = {item.category or query.category for item in answer if label_of(item, query, config) is None}
        for category in sorted(strange, key=str):
            what = repr(category_named(category).display) if category else "an expression without a known category"
            labels = ", ".join(label.stored for label in config.labels)
            found.append(Note(expression, NO_LABEL, f"the labeling config has no label for {what} (labels: {labels})"))
    return tuple(found)


def note_region(notes: Sequence[Note], config: LabelingConfig) -> list[Region]:
    """The notes as a text of the labeling config's field for them; none without notes or without a field."""
    if not notes or not config.has_note:
        return []
    return [
        {
            "id": new_id(),
            "from_name": NOTE,
            "to_name": config.image,
            "type": "textarea",
            "origin": "prediction",
            "value": {"text": [str(note) for note in notes]},
            **({} if config.item is None else {"item_index": config.item}),
        }
    ]


class TaskNotes:
    """Keeps the field ``pslg_note`` of Label Studio's tasks, where the Data Manager filters by it. Thread-safe."""

    def __init__(self, label_studio: LabelStudio | None) -> None:
        self._label_studio = label_studio
        self._jobs = JobPool(1, "notes")

    def keep(self, task: Task, notes: Sequence[Note]) -> None:
        """Write the notes on a task's own expressions into its data, in another thread; does nothing if they are there.

        Of a task whose expressions are answered now an earlier note is emptied.
        """
        self._jobs.submit(Priority.BATCH, lambda: self.write(task, notes))

    def write(self, task: Task, notes: Sequence[Note]) -> bool:
        """As :meth:`keep`, at once; whether anything was written. A failure is logged: the pre-label does not need it.

        The task is not asked for again: Label Studio answers that with a request for its prediction.
        """
        text = note_lines(notes)
        if self._label_studio is None or not isinstance(task.id, int) or (task.data.get(NOTE) or "") == text:
            return False
        try:
            self._label_studio.set_task_data(task.id, {**task.data, NOTE: text})
        except LabelStudioError as error:
            logger.warning("task %s: its note could not be stored in the field %s: %s", task.id, NOTE, error)
            return False
        return True

    def close(self) -> None:
        """Leave what waits."""
        self._jobs.close()
