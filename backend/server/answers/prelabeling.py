"""Batch requests: tasks with expressions -> predictions, within a deadline, one slot per task always.

What the deadline cuts off goes on in the background, is kept (``prelabel_cache``), and is pushed to Label Studio when
its credentials are set, unless Label Studio has asked again meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

from backend.pipeline import PslgSam
from backend.pipeline.segmentation.embedding_store import EmbeddingStore, embedding_address
from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.types import Box, Prelabel, Prelabels
from backend.server.answers.background import JobPool, LatePredictions, Priority, TaskNotes
from backend.server.answers.predictions import Predictions, note_region, notes_of
from backend.server.answers.prelabel_cache import PrelabelCache, PrelabelQuestion
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.editor.prompts import TaskQuery, default_category, read_task
from backend.server.images import EditorImage, TaskImages
from backend.server.metrics import Metrics
from backend.server.protocol import Prediction, Slot, Task
from backend.settings import Settings
from backend.turns import Turns, Urgency
from backend.work import in_words, spent, work
from dataset_tools.errors import ImageError, PslgError, UnavailableError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.notes import Note, is_note

__all__ = ["Prelabeler", "Serving"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """Whether what was asked for is still wanted when its turn comes.

    Attributes:
        answers: the pipeline still answers the project; what waits is dropped when it does not.
        stays: nothing else was promoted, not even what is still being loaded; what came late is pushed only then.
        scope: the project, so that one project's switch drops nothing of another.
    """

    answers: Callable[[], bool] = lambda: True
    stays: Callable[[], bool] = lambda: True
    scope: int | None = None


class _SwitchedError(PslgError):
    """The project is answered by another version now."""


_ALWAYS = Serving()
_MOST_WAITING = 100_000
_GRACE = 0.25
"""Seconds in which the next opened task's image is fetched, if it does not hang."""


class Prelabeler:
    """Computes, keeps and labels the answers to expressions. Thread-safe."""

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
        self._images = images
        self._embeddings = embeddings
        self._cache = cache
        self._metrics = metrics
        # Pools of their own: whoever opens a task waits for no batch, which may have asked the same host for thousands.
        self._pools = {
            priority: JobPool(settings.prelabel_fetchers, f"prelabel-{priority.name.lower()}") for priority in Priority
        }
        self.late = LatePredictions(label_studio, metrics)
        self.notes = TaskNotes(label_studio)
        self.predictions = Predictions(settings, metrics)
        self._running: dict[tuple[str, PrelabelQuestion, int | None, Priority], Future[Prelabels]] = {}
        self._lock = threading.Lock()
        # Fetching overlaps, computing does not: two images at once would only take each other's cores and memory. A
        # batch's image waits until those who open tasks have no further one, which is perhaps being fetched.
        self._compute = Turns(grace=_GRACE)
        self._talk = Turns()  # to a language model in this process, one at a time

    def batch(
        self, pipeline: PslgSam, tasks: Sequence[Task], config: LabelingConfig, serving: Serving = _ALWAYS
    ) -> list[Slot]:
        """One slot per task, in order: a prediction, or ``[]`` for what was not computed.

        Raises:
            UnavailableError: too much waits already.
        """
        if self.waiting > _MOST_WAITING:
            raise UnavailableError(f"{self.waiting} expressions wait from earlier batches; ask again later")
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
        return self.predictions.of(pipeline, query, self.answers(pipeline, query, config, priority), config)

    def answer_newest(
        self, pipeline: PslgSam, query: TaskQuery, config: LabelingConfig
    ) -> tuple[Prediction, frozenset[str]]:
        """The prediction for the last of the texts typed in the editor, with notes on all of them; and the refused.

        The editor sends every text of a sitting each time: the objects of the earlier ones were suggested already.
        Refused are the texts that nothing in the editor can answer: no object with a label, no candidate.

        Raises:
            PslgError: the image cannot be had.
        """
        answers = self.answers(pipeline, query, config, Priority.EDITOR)
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

    def answers(
        self, pipeline: PslgSam, query: TaskQuery, config: LabelingConfig, priority: Priority
    ) -> list[Prelabels]:
        """The pipeline's answer to each expression, its masks cleaned, in their order, however long it takes.

        Raises:
            PslgError: the image cannot be had.
        """
        futures = [self._submit(pipeline, query, text, config, priority) for text in query.expressions]
        return [future.result() for future in futures]

    def kept_answers(self, pipeline: PslgSam, query: TaskQuery, config: LabelingConfig) -> list[Prelabels] | None:
        """The same if all of them were computed before, else None.

        Raises:
            PslgError: the image cannot be had.
        """
        identity = self._images.load(query.url, query.task_id).identity
        found = [self._cache.get(identity, _question(pipeline, query, text, config)) for text in query.expressions]
        answers = [self._cleaned(pipeline.rescored(answer)) for answer in found if answer is not None]
        return answers if len(answers) == len(found) else None

    def warm(self, pipeline: PslgSam, task: Task, config: LabelingConfig) -> tuple[Prediction, tuple[Note, ...]]:
        """Prediction and notes for a task, with everything on disk that makes its first click a warm one.

        Raises:
            PslgError: the image cannot be had.
        """
        query = read_task(task, config)
        answers = self.answers(pipeline, query, config, Priority.BATCH)
        image = self._images.load(query.url, query.task_id)
        height, width = image.size
        whole = Box(0.0, 0.0, float(width), float(height))
        windows = [_click_window(pipeline, item) for answer in answers for item in (*answer, *answer.candidates)]
        if pipeline.segmenter.window_for(Box(0.0, 0.0, 1.0, 1.0), image.size) == whole:
            windows.append(whole)  # a model of whole images is warm for any click
        self._embed(pipeline, image, windows)
        notes = notes_of(query, answers, config)
        return self.predictions.of(pipeline, query, answers, config, notes), notes

    @property
    def waiting(self) -> int:
        """Expressions that no thread has taken yet."""
        return sum(pool.waiting() for pool in self._pools.values())

    def close(self) -> None:
        """Cancel what waits."""
        for pool in self._pools.values():
            pool.close()
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
        return query, [self._submit(pipeline, query, text, config, priority, serving) for text in query.expressions]

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

    def _submit(
        self,
        pipeline: PslgSam,
        query: TaskQuery,
        expression: str,
        config: LabelingConfig,
        priority: Priority,
        serving: Serving = _ALWAYS,
    ) -> Future[Prelabels]:
        """The answer to one expression, computed once however many ask for it at the same time.

        Who opens a task does not wait for the batch that it is in: it is asked for again, and the later turn finds it.
        """
        question = _question(pipeline, query, expression, config)
        urgency = (int(priority), time.monotonic())
        key = (query.url, question, serving.scope, priority)

        def run() -> Prelabels:
            try:
                if not serving.answers():
                    raise _SwitchedError(
                        f"{pipeline.model_version} no longer answers project {serving.scope}; what waited for it is"
                        " dropped: retrieve predictions again"
                    )
                with work(task=query.task_id) as stages:
                    answer = self._compute_one(pipeline, query, question, urgency)
                    self._account(query, answer, stages)
                return answer
            finally:
                with self._lock:
                    self._running.pop(key, None)

        with self._lock:
            future = self._running.get(key)
            if future is None:
                future = self._running[key] = self._pools[priority].submit(
                    run, project=serving.scope, host=_host(query.url)
                )
            return future

    def _compute_one(
        self, pipeline: PslgSam, query: TaskQuery, question: PrelabelQuestion, urgency: Urgency
    ) -> Prelabels:
        stages, began = spent.get(), time.perf_counter()
        image = self._images.load(query.url, query.task_id)
        stages["fetch"] += time.perf_counter() - began
        kept = self._kept(pipeline, image.identity, question)
        self._metrics.prelabel_cache.labels("miss" if kept is None else "hit").inc()
        if kept is not None:
            return kept
        began = time.perf_counter()
        pixels = image.pixels()
        stages["pixels"] += time.perf_counter() - began
        embed = self._embeddings.embedder(pipeline.segmenter, image.identity)
        # A language model holds up nobody: a service is waited for, and who talks to one in this process waits for
        # those who talk to it, in turns of their own.
        grounding = None
        if pipeline.talks is not None:
            ask = partial(pipeline.ground, pixels, question.expression, key=image.identity, labels=question.labels)
            grounding = self._talk.run(ask, urgency) if pipeline.talks == "here" else ask()

        def compute() -> Prelabels:
            kept = self._kept(pipeline, image.identity, question)
            if kept is not None:  # another turn has answered it meanwhile: the batch's, or that of who opened it
                return kept
            until = time.monotonic() + self._settings.deadline
            answer = pipeline.prelabel(
                pixels,
                question.expression,
                default_category=question.default_category,
                key=image.identity,
                embed=embed,
                most=self._cache.most,
                until=until,
                candidates=self._cache.candidates,
                labels=question.labels,
                grounding=grounding,
            )
            if not answer.left_out or time.monotonic() < until:
                # What time cut off is outlined when somebody asks again.
                self._cache.put(image.identity, question, answer)
            cleaned = self._cleaned(answer)
            windows = [_click_window(pipeline, item) for item in (*cleaned.items, *cleaned.candidates)]
            # First clicks are to be warm, but nobody waits for that, nor do those who open the next tasks.
            self._compute.submit(partial(self._embed, pipeline, image, windows))
            return cleaned

        return self._compute.run(compute, urgency)

    def _embed(self, pipeline: PslgSam, image: EditorImage, windows: Iterable[Box]) -> None:
        """Have the embeddings of an image's windows kept."""
        for window in dict.fromkeys(windows):
            address = embedding_address(image.identity, pipeline.segmenter.encoder_hash, window)
            if address not in self._embeddings:
                self._embeddings.embed(pipeline.segmenter, image.identity, image.pixels, window)

    def _kept(self, pipeline: PslgSam, identity: str, question: PrelabelQuestion) -> Prelabels | None:
        found = self._cache.get(identity, question)
        return None if found is None else self._cleaned(pipeline.rescored(found))

    def _account(self, query: TaskQuery, answer: Prelabels, stages: Mapping[str, float]) -> None:
        """Count and log where the time of an expression went, and why it has no answer."""
        self._metrics.count_stages(stages)
        reason = "" if answer.abstained is None else answer.abstained.code
        logger.info(
            "task %s: %s; %s",
            query.task_id,
            reason or f"{len(answer)} objects",
            in_words(stages),
            extra={"stages": stages, "seconds": sum(stages.values()), "reason": reason},
        )

    def _cleaned(self, answer: Prelabels) -> Prelabels:
        specks, holes = self._settings.speck_area, self._settings.hole_area

        def cleaned(items: Iterable[Prelabel]) -> tuple[Prelabel, ...]:
            return tuple(replace(item, mask=clean_mask(item.mask, specks, holes)) for item in items)

        return replace(answer, items=cleaned(answer.items), candidates=cleaned(answer.candidates))


def _host(url: str) -> str:
    """Who is asked for an image: "Label Studio" for its own paths."""
    try:
        return urlsplit(url).netloc.lower() or "Label Studio"
    except ValueError:
        return url[:200]


def _question(pipeline: PslgSam, query: TaskQuery, expression: str, config: LabelingConfig) -> PrelabelQuestion:
    """What the pipeline is asked: a model of any word gets the annotator's own, others those that they know."""
    asked = expression if pipeline.grounder.known_categories is None else config.asked(expression)
    default = default_category(query, config, expression)
    return PrelabelQuestion(asked, default, pipeline.version_answering(asked), config.own_categories)


def _click_window(pipeline: PslgSam, item: Prelabel) -> Box:
    """The window that a click on this object's region will want: around its cleaned mask, not around its box."""
    height, width = item.mask.shape
    return pipeline.segmenter.window_for(Box.of_mask(item.mask), (height, width))
