"""Work that no request waits for: threads that take the most urgent job first, and predictions that came too late.

A prediction that came after its batch's deadline is pushed to Label Studio, unless it has asked again meanwhile.
"""

from __future__ import annotations

import contextvars
import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, TypeVar

from backend.server.metrics import Metrics
from backend.server.protocol import Prediction
from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio

__all__ = ["JobPool", "LatePredictions", "Priority"]

logger = logging.getLogger(__name__)

_MOST_LATE = 10_000
T = TypeVar("T")


class Priority(IntEnum):
    """Smaller goes first: somebody waits in the editor, or a batch is being retrieved."""

    EDITOR = 0
    BATCH = 1


class JobPool:
    """Runs functions in ``workers`` threads; among waiting ones the smallest (priority, order of arrival) first.

    The threads are daemons: a batch that is being computed never keeps the process from ending.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._heap: list[tuple[int, int, Callable[[], None], Future[Any]]] = []
        self._numbers = itertools.count()
        self._condition = threading.Condition()
        self._closed = False
        for number in range(workers):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(self, priority: Priority, function: Callable[[], T]) -> Future[T]:
        """Queue ``function``; its result or exception goes into the future."""
        future: Future[T] = Future()
        context = contextvars.copy_context()  # whose work it is, for the log

        def run() -> None:
            try:
                future.set_result(context.run(function))
            except BaseException as error:
                future.set_exception(error)

        with self._condition:
            heapq.heappush(self._heap, (int(priority), next(self._numbers), run, future))
            self._condition.notify()
        return future

    def waiting(self) -> int:
        """Number of jobs that no thread has taken yet."""
        return len(self._heap)

    def close(self) -> None:
        """Cancel the waiting jobs and end the threads after the jobs that they run."""
        with self._condition:
            self._closed = True
            for *_, future in self._heap:
                future.cancel()
            self._heap.clear()
            self._condition.notify_all()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._heap and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                *_, run, future = heapq.heappop(self._heap)
            if future.set_running_or_notify_cancel():
                run()


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
        self._jobs.submit(Priority.BATCH, lambda: self._push(label_studio, task_id, project, ticket, wait, wanted))

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
