"""Interactive requests: clicks, boxes, strokes and texts -> suggestions.

Stateless: the answer is a function of the request and the model. What is kept (embeddings, logits of prompt prefixes)
only makes it faster.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from backend.memory import forget_locals
from backend.pipeline import PslgSam
from backend.pipeline.scores import clicked_score
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.segmentation.mask_cleaning import shown_mask
from backend.pipeline.segmentation.refinement import outlined
from backend.pipeline.segmentation.replay import ReplayCache, Supposed, replay
from backend.pipeline.types import Box, Image, NamedImage, Point
from backend.server.answers.more_like import MoreLikeThis
from backend.server.answers.predictions import BUSY, note_region
from backend.server.answers.prelabeling import Prelabeler
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.editor.prompts import ObjectPrompt, answered_fields, read_prompts, read_task
from backend.server.editor.regions import FoundRegion, RegionLookup, RegionWriter, visible_results
from backend.server.images import TaskImages
from backend.server.metrics import Metrics
from backend.server.protocol import Prediction, PredictRequest, Region, Task
from backend.settings import Settings
from backend.work import in_words, spent, work
from dataset_tools.errors import PslgError, UnavailableError
from dataset_tools.label_studio.notes import Note, answered

__all__ = ["ClickQueue", "Clicks"]

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Request:
    task: Hashable
    prompts: tuple[bytes, ...]
    number: int
    immediate: bool
    superseded: bool = False
    running: bool = False
    away: bool = False
    fetching: bool = False
    arrived: float = field(default_factory=time.monotonic)


class ClickQueue:
    """Who is served next when many clicks arrive at once.

    The newest request of a task goes first, since the editor shows only the answer to the latest; a waiting request
    whose prompts are the beginning of a newer one's is answered at once, empty; beyond a bound requests are refused.

    Lets ``running`` requests work at a time and keeps at most ``capacity`` working or waiting, and with those that
    wait for images from elsewhere ``most``. More than one works at a time, and who waits for an image to be fetched or
    embedded takes none of these places: a warm click need not wait for that.
    """

    def __init__(self, capacity: int, running: int = 4, most: int | None = None) -> None:
        self._capacity = capacity
        self._running = running
        self._most = most or 2 * capacity
        self._requests: list[_Request] = []
        self._numbers = itertools.count()
        self._condition = threading.Condition()
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self._requests)

    @contextmanager
    def turn(self, task: Hashable, prompts: Sequence[bytes], *, immediate: bool = False) -> Iterator[bool]:
        """Wait for this request's turn; gives False when a newer request has made it pointless.

        Args:
            task: requests of one task compete, those of different tasks take turns.
            prompts: the request's prompts in order, in a form that compares equal when they are the same.
            immediate: it waits elsewhere for its work (a text prompt among the pre-labels): it takes a place, but
                neither waits here nor keeps a click from working.

        Raises:
            UnavailableError: too many requests are waiting.
        """
        request = self._enter(task, tuple(prompts), immediate)
        try:
            granted = self._wait(request)
            self._local.request = request
            yield granted
        finally:
            self._local.request = None
            with self._condition:
                self._requests.remove(request)
                self._condition.notify_all()

    @contextmanager
    def away(self, *, fetching: bool = True) -> Iterator[None]:
        """While this thread's request cannot go on by itself: it takes no place of those that could work.

        Args:
            fetching: it waits for an image from elsewhere, and does not even count among those that wait here.
        """
        request: _Request | None = getattr(self._local, "request", None)
        if request is None:
            yield
            return
        before = (request.away, request.fetching)
        self._set_away(request, away=True, fetching=fetching)
        try:
            yield
        finally:
            self._set_away(request, *before)

    @property
    def arrived(self) -> float:
        """When this thread's request came (``time.monotonic``); now without one."""
        request: _Request | None = getattr(self._local, "request", None)
        return time.monotonic() if request is None else request.arrived

    def _set_away(self, request: _Request, away: bool, fetching: bool) -> None:
        with self._condition:
            request.away, request.fetching = away, fetching
            self._condition.notify_all()

    def _enter(self, task: Hashable, prompts: tuple[bytes, ...], immediate: bool) -> _Request:
        with self._condition:
            request = _Request(task, prompts, next(self._numbers), immediate)
            for other in self._requests:
                shorter = len(other.prompts) < len(prompts) and other.prompts == prompts[: len(other.prompts)]
                if other.task == task and not other.running and not other.immediate and shorter:
                    other.superseded = True
            waiting = [other for other in self._requests if not other.superseded]
            fetching = sum(other.fetching for other in waiting)
            if len(waiting) - fetching >= self._capacity or len(waiting) >= self._most:
                images = f", {fetching} of them for images from elsewhere" if fetching else ""
                raise UnavailableError(
                    f"{len(waiting)} clicks are waiting already (PSLG_CLICK_QUEUE){images}; click again later"
                )
            self._requests.append(request)
            self._condition.notify_all()
            return request

    def _wait(self, request: _Request) -> bool:
        if request.immediate:
            return True
        with self._condition:
            while not request.superseded and not self._is_next(request):
                self._condition.wait()
            request.running = not request.superseded
            return request.running

    def _is_next(self, request: _Request) -> bool:
        if sum(other.running and not other.away for other in self._requests) >= self._running:
            return False
        waiting = [other for other in self._requests if not (other.running or other.superseded or other.immediate)]
        # The task that has waited longest is next; within it the newest request.
        task = min(waiting, key=lambda other: other.number).task
        return request is max((other for other in waiting if other.task == task), key=lambda other: other.number)


class Clicks:
    """Answers interactive requests. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        images: TaskImages,
        embeddings: EmbeddingStore,
        prelabeler: Prelabeler,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._images = images
        self._embeddings = embeddings
        self._prelabeler = prelabeler
        self._metrics = metrics
        self._lookup = RegionLookup()
        self._more = MoreLikeThis(settings, embeddings, self._lookup, metrics)
        self._kept = ReplayCache()

    def answer(
        self, pipeline: PslgSam, request: PredictRequest, config: LabelingConfig, queue: ClickQueue
    ) -> Prediction:
        """The suggestions for an interactive request; empty where there is nothing to suggest, with a logged reason.

        Raises:
            UnavailableError: too many clicks are waiting, and the labeling config has no field for a note on it.
        """
        empty: Prediction = {"result": [], "score": 0.0, "model_version": pipeline.model_version}
        task, context = request.tasks[0], request.context
        items = context.result if context is not None else []
        if not items:
            self._metrics.clicks.labels("empty").inc()
            return empty
        with work(task=task.id) as stages:
            prediction, outcome = self._attempt(pipeline, request, config, queue, items)
            self._metrics.clicks.labels(outcome).inc()
            self._metrics.count_stages(stages)
            reason = "" if outcome == "answered" else outcome
            fields = {"stages": stages, "seconds": sum(stages.values()), "reason": reason}
            logger.info("task %s: %s; %s", task.id, outcome, in_words(stages), extra=fields)
        return empty if prediction is None else prediction

    def _attempt(
        self, pipeline: PslgSam, request: PredictRequest, config: LabelingConfig, queue: ClickQueue, items: list[Any]
    ) -> tuple[Prediction | None, str]:
        """The prediction, None where there is none, and what became of the request, as the metrics call it."""
        task, began = request.tasks[0], time.perf_counter()
        try:
            prompts = [orjson.dumps(item) for item in items]
            has_text = any(isinstance(item, dict) and item.get("type") == "textarea" for item in items)
            with queue.turn((request.project, task.id), prompts, immediate=has_text) as granted:
                if not granted:
                    return None, "superseded"
                spent.get()["queue"] += time.perf_counter() - began
                prediction = self._answer(pipeline, request, config, queue)
        except UnavailableError as error:
            # Of a refused request the editor shows nothing at all, of a note its words.
            note = note_region([Note("click", BUSY, str(error))], config)
            if not note:
                self._metrics.clicks.labels("refused").inc()
                raise
            logger.warning("task %s: %s", task.id, error)
            return {"result": note, "score": 0.0, "model_version": pipeline.model_version}, "refused"
        except Exception as error:
            # The editor shows nothing for an error: an empty answer ends its spinner, the reason goes into the log.
            known = isinstance(error, PslgError)
            forget_locals(error)  # a log's handler may keep it
            logger.warning("task %s: no suggestion: %s", task.id, error, exc_info=not known)
            return None, "failed"
        return prediction, "answered" if answered(prediction["result"]) else "empty"

    def _answer(
        self, pipeline: PslgSam, request: PredictRequest, config: LabelingConfig, queue: ClickQueue
    ) -> Prediction:
        task, context = request.tasks[0], request.context
        assert context is not None  # noqa: S101 - answer() sees to it
        config = config.on(context.result)
        query = read_task(task, config)
        began = time.perf_counter()
        with queue.away():
            known = self._images.load(query.url, query.task_id)
        spent.get()["fetch"] += time.perf_counter() - began

        def pixels() -> Image:
            began = time.perf_counter()
            with queue.away():
                found = known.pixels()
            spent.get()["pixels"] += time.perf_counter() - began
            return found

        image = NamedImage(known.identity, known.size, pixels)
        prompts = read_prompts(context.result, task, config, image.size)
        regions: list[Region] = []
        scores: list[float] = []
        if prompts.texts:
            typed = read_task(task, config, prompts.texts)
            prediction, refused = self._prelabeler.answer_newest(pipeline, typed, config)
            regions += prediction["result"]
            regions += answered_fields(context.result, config, prompts.texts, refused)
            scores.append(prediction["score"])
        if prompts.more is not None:
            found, score = self._more.regions(pipeline, prompts.more, task, config, image)
            regions += found
            scores.append(score)
        for prompt in prompts.objects:
            found, score = self._refine(pipeline, prompt, task, config, image, queue)
            regions += found
            scores.append(score)
        return {
            "result": regions,
            "score": sum(scores) / len(scores) if regions else 0.0,
            "model_version": pipeline.model_version,
        }

    def _refine(
        self,
        pipeline: PslgSam,
        prompt: ObjectPrompt,
        task: Task,
        config: LabelingConfig,
        image: NamedImage,
        queue: ClickQueue,
    ) -> tuple[list[Region], float]:
        """Regions and score for one object."""
        controls = config.controls_for(prompt.label)
        if not controls:
            logger.warning("task %s: no control for masks has the label %r", task.id, prompt.label)
            return [], 0.0
        segmenter, prompts = pipeline.segmenter, prompt.prompts
        embed = partial(
            self._embeddings.embed,
            segmenter,
            image.identity,
            image.pixels,
            urgency=(0, queue.arrived),
            waiting=partial(queue.away, fetching=False),
        )
        supposed = _supposed(pipeline, config.names_of(prompt.label), image, queue)
        region: FoundRegion | None = None
        if prompt.box is None:
            first, seen = prompt.clicks[0], visible_results(task)
            region = self._lookup.under(seen, first.point, prompt.label, config, image.size)
            if region is None and not any(click.positive for click in prompt.clicks):
                logger.info("task %s: only negative clicks and no region under the first", task.id)
                return [], 0.0
            if region is None and first.positive and seen:
                # The click may lie beside a region, on the part of its object that is missing.
                region = self._lookup.near(seen, first.point, prompt.label, config, image.size)
            if region is None and first.positive and seen:
                kept = self._kept.of(pipeline.model_version, image.identity, prompt.label)
                points = outlined(segmenter, embed, image.size, prompts, kept, supposed)
                region = self._lookup.holding(seen, points, prompt.label, config, image.size)
        digest, mask = ("", None) if region is None else (region.digest, region.mask)
        kept = self._kept.of(pipeline.model_version, image.identity, prompt.label, digest)
        stages, began = spent.get(), time.perf_counter()
        before = _elsewhere(stages)
        prediction = replay(segmenter, embed, image.size, prompts, mask, kept, supposed)
        replayed = time.perf_counter()
        stages["segment"] += replayed - began - (_elsewhere(stages) - before)
        cleaned = shown_mask(
            prediction.mask,
            prompts,
            self._settings.speck_area,
            self._settings.hole_area,
            new=region is None,
            drawn=prompt.drawn,
        )
        writer = RegionWriter.of(config, pipeline.model_version, self._settings, self._metrics.brush_bytes.observe)
        score = clicked_score(prediction, pipeline.config.score)
        regions = writer.regions(
            cleaned,
            prompt.label,
            controls if region is None else [region.control],
            score=score,
            expression=None if region is None else region.expression,
            clicks=len(prompt.clicks) + (prompt.box is not None),
            region_id=None if region is None else region.id,
        )
        stages["write"] += time.perf_counter() - replayed
        return regions, score


def _supposed(pipeline: PslgSam, names: Sequence[str], image: NamedImage, queue: ClickQueue) -> Supposed:
    """The object so called under a click; an image that nobody asked about before is looked at first."""

    def supposed(point: Point) -> Box | None:
        with queue.away(fetching=False):
            return pipeline.object_at(point, names, image)

    return supposed


def _elsewhere(stages: Mapping[str, float]) -> float:
    """Seconds of a replay that count as other stages."""
    return sum(stages.get(stage, 0.0) for stage in ("ground", "embed", "pixels"))
