"""Predictions that came after their batch's deadline: pushed to Label Studio, unless it has asked again meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from backend.server.answers.background import JobPool, Priority
from backend.server.metrics import Metrics
from backend.server.protocol import Prediction
from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio

__all__ = ["LatePredictions"]

logger = logging.getLogger(__name__)


class LatePredictions:
    """Pushes one prediction after the other. Thread-safe; does nothing without a Label Studio."""

    def __init__(self, label_studio: LabelStudio | None, metrics: Metrics) -> None:
        self._label_studio = label_studio
        self._metrics = metrics
        self._jobs = JobPool(1, "push")
        self._tickets: dict[int | str, object] = {}
        self._lock = threading.Lock()

    def push(
        self, task_id: int | str, wait: Callable[[], Prediction], wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Push what ``wait`` returns, once it returns, if it is ``wanted`` then; both are called in another thread."""
        if self._label_studio is None:
            return
        label_studio, ticket = self._label_studio, object()
        with self._lock:
            self._tickets[task_id] = ticket
        self._jobs.submit(Priority.BATCH, lambda: self._push(label_studio, task_id, ticket, wait, wanted))

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
            if not label_studio.has_prediction(task_id, prediction["model_version"]):
                label_studio.add_prediction(task_id, prediction)
            self._metrics.pushed.labels("ok").inc()
        except LabelStudioError as error:
            self._metrics.pushed.labels("failed").inc()
            logger.warning("task %s: computed, but not pushed: %s", task_id, error)
