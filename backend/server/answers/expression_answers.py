"""The pipeline's answers to expressions: asked once however many wait for one, computed in turns, kept, cleaned.

Fetching overlaps, computing does not. What is answered: ``prelabeling``; what is kept: ``prelabel_cache``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

from backend.pipeline import PslgSam
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.types import Box, Prelabel, Prelabels
from backend.server.answers.prelabel_cache import PrelabelCache, PrelabelQuestion
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.editor.prompts import TaskQuery, default_category
from backend.server.images import TaskImages
from backend.server.metrics import Metrics
from backend.settings import Settings
from backend.turns import JobPool, Priority, Turns, Urgency
from backend.work import in_words, spent, work
from dataset_tools.errors import PslgError

__all__ = ["ALWAYS", "ExpressionAnswers", "Serving"]

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


ALWAYS = Serving()
_GRACE = 0.25
"""Seconds in which the next opened task's image is fetched, if it does not hang."""


class ExpressionAnswers:
    """Computes and keeps the answers to expressions, masks cleaned. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        images: TaskImages,
        embeddings: EmbeddingStore,
        cache: PrelabelCache,
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
        self._running: dict[tuple[str, PrelabelQuestion, int | None, Priority], Future[Prelabels]] = {}
        self._lock = threading.Lock()
        # Two images at once would only take each other's cores and memory. A batch's image waits until those who open
        # tasks have no further one, which is perhaps being fetched.
        self._compute = Turns(grace=_GRACE)
        self._talk = Turns()  # to a language model in this process, one at a time

    def submit(
        self,
        pipeline: PslgSam,
        query: TaskQuery,
        expression: str,
        config: LabelingConfig,
        priority: Priority,
        serving: Serving = ALWAYS,
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

    def answers(
        self, pipeline: PslgSam, query: TaskQuery, config: LabelingConfig, priority: Priority
    ) -> list[Prelabels]:
        """The pipeline's answer to each expression, its masks cleaned, in their order, however long it takes.

        Raises:
            PslgError: the image cannot be had.
        """
        futures = [self.submit(pipeline, query, text, config, priority) for text in query.expressions]
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

    def warm_clicks(self, pipeline: PslgSam, query: TaskQuery, answers: Sequence[Prelabels]) -> None:
        """Have everything on disk that makes the first click on these answers' objects a warm one.

        Raises:
            PslgError: the image cannot be had.
        """
        image = self._images.load(query.url, query.task_id)
        height, width = image.size
        whole = Box(0.0, 0.0, float(width), float(height))
        windows = _click_windows(pipeline, [item for answer in answers for item in (*answer, *answer.candidates)])
        if pipeline.segmenter.window_for(Box(0.0, 0.0, 1.0, 1.0), image.size) == whole:
            windows.append(whole)  # a model of whole images is warm for any click
        self._embeddings.keep(pipeline.segmenter, image.identity, image.pixels, windows)

    @property
    def waiting(self) -> int:
        """Expressions that no thread has taken yet."""
        return sum(map(JobPool.waiting, self._pools.values()))

    def close(self) -> None:
        """Cancel what waits."""
        for pool in self._pools.values():
            pool.close()

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
            windows = _click_windows(pipeline, (*cleaned.items, *cleaned.candidates))
            # First clicks are to be warm, but nobody waits for that, nor do those who open the next tasks.
            keep = partial(self._embeddings.keep, pipeline.segmenter, image.identity, image.pixels, windows)
            self._compute.submit(keep)
            return cleaned

        return self._compute.run(compute, urgency)

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

        def cleaned(items: Sequence[Prelabel]) -> tuple[Prelabel, ...]:
            masks = [clean_mask(item.mask, specks, holes) for item in items]
            return tuple(replace(item, mask=mask) for item, mask in zip(items, masks, strict=True))

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


def _click_windows(pipeline: PslgSam, items: Sequence[Prelabel]) -> list[Box]:
    """The windows that clicks on these objects' regions will want: around their cleaned masks, not their boxes."""
    if not items:
        return []
    height, width = items[0].mask.shape
    boxes = [Box.of_mask(item.mask) for item in items]
    return [pipeline.segmenter.window_for(box, (height, width)) for box in boxes]
