"""Batch requests: tasks with expressions -> predictions, within a deadline, one slot per task always.

The answers come from ``expression_answers``. What the deadline cuts off goes on in the background, and is pushed to
Label Studio when its credentials are set, unless Label Studio has asked again meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace

from backend.pipeline import PslgSam
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.types import Prelabels
from backend.server.answers.background import LatePredictions, TaskNotes
from backend.server.answers.expression_answers import ALWAYS, ExpressionAnswers, Serving
from backend.server.answers.predictions import Predictions, note_region, notes_of
from backend.server.answers.prelabel_cache import PrelabelCache
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.editor.prompts import TaskQuery, read_task
from backend.server.images import TaskImages
from backend.server.metrics import Metrics
from backend.server.protocol import Prediction, Slot, Task
from backend.settings import Settings
from backend.turns import Priority
from dataset_tools.errors import ImageError, PslgError, UnavailableError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.notes import Note, is_note

__all__ = ["Prelabeler"]

logger = logging.getLogger(__name__)


_MOST_WAITING = 100_000


class Prelabeler:
    """Labels the answers to expressions, in time. Thread-safe.

    Attributes:
        expressions: computes and keeps the answers.
    """

    def __init__(
        self,
        settings: Settings,
        images: TaskImages,
        embeddings: EmbeddingStore,
        cache: PrelabelCache,
        label_studio: LabelStudio | None,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self.expressions = ExpressionAnswers(settings, images, embeddings, cache, metrics)
        self.late = LatePredictions(label_studio, metrics)
        self.notes = TaskNotes(label_studio)
        self.predictions = Predictions(settings, metrics)

    def batch(
        self, pipeline: PslgSam, tasks: Sequence[Task], config: LabelingConfig, serving: Serving = ALWAYS
    ) -> list[Slot]:
        """One slot per task, in order: a prediction, or ``[]`` for what was not computed.

        Raises:
            UnavailableError: too much waits already.
        """
        if (waiting := self.expressions.waiting) > _MOST_WAITING:
            raise UnavailableError(f"{waiting} expressions wait from earlier batches; ask again later")
        until = time.monotonic() + self._settings.deadline
        priority = Priority.EDITOR if len(tasks) == 1 else Priority.BATCH
        started = deque(self._start(pipeline, task, config, priority, serving) for task in tasks)
        # Each job is let go with its slot: it holds whole masks, the slot their short code.
        return [self._slot(pipeline, task, started.popleft(), config, until, serving) for task in tasks]

    def answer(
        self, pipeline: PslgSam, query: TaskQuery, config: LabelingConfig, priority: Priority = Priority.EDITOR
    ) -> Prediction:
        """The prediction for one query, however long it takes (a text prompt in the editor, ``pslg warm``).

        Raises:
            PslgError: the image cannot be had.
        """
        return self.predictions.of(pipeline, query, self.expressions.answers(pipeline, query, config, priority), config)

    def answer_newest(
        self, pipeline: PslgSam, query: TaskQuery, config: LabelingConfig
    ) -> tuple[Prediction, frozenset[str]]:
        """The prediction for the last of the texts typed in the editor, with notes on all of them; and the refused.

        The editor sends every text of a sitting each time: the objects of the earlier ones were suggested already.
        Refused are the texts that nothing in the editor can answer: no object with a label, no candidate.

        Raises:
            PslgError: the image cannot be had.
        """
        answers = self.expressions.answers(pipeline, query, config, Priority.EDITOR)
        newest = replace(query, expressions=query.expressions[-1:])
        prediction = self.predictions.of(pipeline, newest, answers[-1:], config)
        objects = [region for region in prediction["result"] if not is_note(region)]
        notes = note_region(notes_of(query, answers, config), config)
        refused = frozenset(
            text
            for text, answer in zip(query.expressions, answers, strict=True)
            if all(config.label_of(item.category or query.category) is None for item in (*answer, *answer.candidates))
        )
        return {**prediction, "result": objects + notes}, refused

    def warm(self, pipeline: PslgSam, task: Task, config: LabelingConfig) -> tuple[Prediction, tuple[Note, ...]]:
        """Prediction and notes for a task, with everything on disk that makes its first click a warm one.

        Raises:
            PslgError: the image cannot be had.
        """
        query = read_task(task, config)
        answers = self.expressions.answers(pipeline, query, config, Priority.BATCH)
        self.expressions.warm_clicks(pipeline, query, answers)
        notes = notes_of(query, answers, config)
        return self.predictions.of(pipeline, query, answers, config, notes), notes

    def close(self) -> None:
        """Cancel what waits."""
        self.expressions.close()
        self.late.close()
        self.notes.close()

    def _start(
        self, pipeline: PslgSam, task: Task, config: LabelingConfig, priority: Priority, serving: Serving
    ) -> tuple[TaskQuery, list[Future[Prelabels]]] | None:
        if task.id is not None:
            self.late.forget(task.id)  # Label Studio asks itself again
        try:
            query = read_task(task, config)
        except ImageError as error:
            self._failed(task.id, error)
            return None
        return query, [
            self.expressions.submit(pipeline, query, text, config, priority, serving) for text in query.expressions
        ]

    def _slot(
        self,
        pipeline: PslgSam,
        task: Task,
        job: tuple[TaskQuery, list[Future[Prelabels]]] | None,
        config: LabelingConfig,
        until: float,
        serving: Serving,
    ) -> Slot:
        if job is None:
            return []
        query, futures = job
        try:
            answers = [future.result(max(0.0, until - time.monotonic())) for future in futures]
        except FutureTimeoutError:
            fields = {"task": query.task_id, "reason": "late"}
            logger.warning(
                "task %s: not computed within %s s, goes on", query.task_id, self._settings.deadline, extra=fields
            )
            self._metrics.prelabels.labels("late").inc()
            if query.task_id is not None:
                self.late.push(
                    query.task_id,
                    serving.scope,
                    lambda: self._noted(pipeline, task, query, [future.result() for future in futures], config),
                    serving.stays,
                )
            return []
        except Exception as error:
            # One task's failure, of whatever kind, must not cost the others their answers.
            self._failed(query.task_id, error)
            return []
        return self._noted(pipeline, task, query, answers, config)

    def _noted(
        self,
        pipeline: PslgSam,
        task: Task,
        query: TaskQuery,
        answers: Sequence[Prelabels],
        config: LabelingConfig,
    ) -> Prediction:
        notes = notes_of(query, answers, config)
        self.notes.keep(task, notes)
        return self.predictions.of(pipeline, query, answers, config, notes)

    def _failed(self, task_id: int | str | None, error: Exception) -> None:
        self._metrics.prelabels.labels("failed").inc()
        fields = {"task": task_id, "reason": type(error).__name__}
        if isinstance(error, PslgError):
            logger.warning("task %s: not computed: %s", task_id, error, extra=fields)
        else:
            logger.error("task %s: not computed", task_id, exc_info=error, extra=fields)
