"""Work in threads of its own, project by project, and what it brings to Label Studio.

A prediction that came after its batch's deadline is pushed there, unless it has asked again meanwhile; a note is
written into its task's data.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from backend.server.metrics import Metrics
from backend.server.protocol import Prediction, Task
from backend.turns import promised
from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.notes import NOTE, Note, note_lines

__all__ = ["JobPool", "LatePredictions", "Priority", "TaskNotes"]

logger = logging.getLogger(__name__)

_MOST_LATE = 10_000
_REMEMBERED = 10_000
T = TypeVar("T")


class Priority(IntEnum):
    """Smaller goes first: somebody waits in the editor, or a batch is being retrieved."""

    EDITOR = 0
    BATCH = 1


@dataclass(frozen=True)
class _Job:
    number: int
    run: Callable[[], None]
    future: Future[Any]


class JobPool:
    """Runs functions in ``workers`` threads, project by project.

    One host gets all threads but two at most, so that one that hangs does not hold up everybody. The threads are
    daemons: a batch that is being computed never keeps the process from ending.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._lanes: dict[tuple[Hashable, str], deque[_Job]] = {}
        self._numbers = itertools.count()
        self._served: dict[Hashable, int] = {}  # project -> when it was served last
        self._at_work: Counter[str] = Counter()  # by host
        self._host_share = max(1, workers - 2)
        self._condition = threading.Condition()
        self._closed = False
        for number in range(workers):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(self, function: Callable[[], T], *, project: Hashable = None, host: str = "") -> Future[T]:
        """Queue ``function``; its result or exception goes into the future.

        Args:
            function: called in one of the threads.
            project: projects take turns.
            host: that it will wait for; "" for none.
        """
        run, future = promised(function)
        with self._condition:
            self._lanes.setdefault((project, host), deque()).append(_Job(next(self._numbers), run, future))
            self._condition.notify_all()
        return future

    def waiting(self) -> int:
        """Number of jobs that no thread has taken yet."""
        with self._condition:
            return sum(map(len, self._lanes.values()))

    def close(self) -> None:
        """Cancel the waiting jobs and end the threads after the jobs that they run."""
        with self._condition:
            self._closed = True
            for lane in self._lanes.values():
                for job in lane:
                    job.future.cancel()
            self._lanes.clear()
            self._condition.notify_all()

    def _next(self) -> tuple[Hashable, str] | None:
        """The lane whose first job goes next; None if none may."""
        free = [
            (self._served.get(key[0], -1), lane[0].number, key)
            for key, lane in self._lanes.items()
            if not key[1] or self._at_work[key[1]] < self._host_share
        ]
        return min(free, key=lambda item: item[:2])[2] if free else None

    def _work(self) -> None:
        while True:
            with self._condition:
                while (key := self._next()) is None and not self._closed:
                    self._condition.wait()
                if key is None or self._closed:
                    return
                job = self._lanes[key].popleft()
                if not self._lanes[key]:
                    del self._lanes[key]
                project, host = key
                if len(self._served) > _REMEMBERED:
                    self._served.clear()
                self._served[project] = next(self._numbers)
                self._at_work[host] += 1
            try:
                if job.future.set_running_or_notify_cancel():
                    job.run()
            finally:
                del job  # and with it what it has made, while the thread waits for the next
                with self._condition:
                    self._at_work[host] -= 1
                    if not self._at_work[host]:
                        del self._at_work[host]
                    self._condition.notify_all()


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
