"""What is brought to Label Studio in threads of its own.

A prediction that came after its batch's deadline is pushed there, unless it has asked again meanwhile; a note is
written into its task's data.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from backend.server.metrics import Metrics
from backend.server.protocol import Prediction, Task
from backend.turns import JobPool
from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.notes import NOTE, Note, note_lines

__all__ = ["LatePredictions", "TaskNotes"]

logger = logging.getLogger(__name__)

_MOST_LATE = 10_000


class LatePredictions:
    """Pushes one prediction after the other. Thread-safe; does nothing without a Label Studio."""

    def __init__(self, label_studio: LabelStudio | None, metrics: Metrics) -> None:
        self._label_studio = label_studio
        self._metrics = metrics
        self._jobs = JobPool(1, "push")
        self._tickets: dict[int | str, object] = {}
        self._lock = threading.Lock()

    def push(
        self,
        task_id: int | str,
        project: int | None,
        wait: Callable[[], Prediction],
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Push what ``wait`` returns, once it returns, if it is ``wanted`` then; both are called in another thread.

        It is pushed only if the task is one of ``project``, and a backend of our model version is connected there: a
        request could name any task.
        """
        if self._label_studio is None:
            return
        label_studio, ticket = self._label_studio, object()
        with self._lock:
            if len(self._tickets) >= _MOST_LATE:
                self._metrics.pushed.labels("refused").inc()
                logger.warning("task %s: %d predictions wait to be pushed already: not pushed", task_id, _MOST_LATE)
                return
            self._tickets[task_id] = ticket
        self._jobs.submit(lambda: self._push(label_studio, task_id, project, ticket, wait, wanted))

    def forget(self, task_id: int | str) -> None:
        """Label Studio has asked for this task again and gets the prediction itself: do not push it too."""
        with self._lock:
            self._tickets.pop(task_id, None)

    def waiting(self, task_id: int | str) -> bool:
        """Whether a prediction for this task is to be pushed."""
        with self._lock:
            return task_id in self._tickets

    def close(self) -> None:
        """Forget what waits."""
        self._jobs.close()

    def _push(
        self,
        label_studio: LabelStudio,
        task_id: int | str,
        project: int | None,
        ticket: object,
        wait: Callable[[], Prediction],
        wanted: Callable[[], bool],
    ) -> None:
        try:
            prediction = wait()
            stays = wanted()
        except Exception as error:
            # Whatever a model raises ends this task's push, not the thread that pushes the others.
            logger.warning("task %s: not computed: %s", task_id, error)
            self.forget(task_id)
            return
        with self._lock:
            if self._tickets.get(task_id) is not ticket:
                return
            del self._tickets[task_id]
        if not stays:
            version = prediction["model_version"]
            logger.info("task %s: not pushed: %s no longer serves its project", task_id, version)
            return
        try:
            reason = _foreign(label_studio, task_id, project, prediction["model_version"])
            if reason is not None:
                self._metrics.pushed.labels("refused").inc()
                logger.warning("task %s: computed, but not pushed: %s", task_id, reason)
                return
            if not label_studio.has_prediction(task_id, prediction["model_version"]):
                label_studio.add_prediction(task_id, prediction)
            self._metrics.pushed.labels("ok").inc()
        except LabelStudioError as error:
            self._metrics.pushed.labels("failed").inc()
            logger.warning("task %s: computed, but not pushed: %s", task_id, error)


def _foreign(studio: LabelStudio, task_id: int | str, project: int | None, model_version: str) -> str | None:
    """Why a task is not ours to write to, None if it is."""
    if project is None:
        return "the request named no project"
    task = studio.task(task_id)
    owner = None if task is None else task.get("project")
    if owner != project:
        return f"it is no task of project {project}, which asked for it"
    if not any(row.get("model_version") == model_version for row in studio.backends(project)):
        return f"project {project} has no backend connected with version {model_version}"
    return None


class TaskNotes:
    """Keeps the field ``pslg_note`` of Label Studio's tasks, where the Data Manager filters by it. Thread-safe."""

    def __init__(self, label_studio: LabelStudio | None) -> None:
        self._label_studio = label_studio
        self._jobs = JobPool(1, "notes")

    def keep(self, task: Task, notes: Sequence[Note]) -> None:
        """Write the notes on a task's own expressions into its data, in another thread; does nothing if they are there.

        Of a task whose expressions are answered now an earlier note is emptied.
        """
        if self._label_studio is not None and (task.data.get(NOTE) or "") != note_lines(notes):
            self._jobs.submit(lambda: self.write(task, notes))

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
