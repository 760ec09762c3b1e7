"""Interactive requests: clicks, boxes, strokes and texts -> suggestions.

Stateless: the answer is a function of the request and the model. What is kept (embeddings, logits of prompt prefixes)
only makes it faster.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import orjson

from backend.bounded_cache import BoundedCache
from backend.pipeline import PslgSam
from backend.pipeline.segmentation.embedding_store import EmbeddingStore, embedding_address
from backend.pipeline.segmentation.replay import click_window, first_replayed
from backend.pipeline.types import Box, Embedding, Image, MaskPrediction, Point, Prompts
from backend.server.answers.click_queue import ClickQueue
from backend.server.answers.prelabeling import Prelabeler
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.editor.mask_cleaning import clean_mask
from backend.server.editor.prompts import ObjectPrompt, read_prompts
from backend.server.editor.region_lookup import FoundRegion, RegionLookup, has_regions, spread_points
from backend.server.editor.regions import RegionWriter
from backend.server.editor.task_query import TaskQuery, read_task
from backend.server.images import ImageIdentity, TaskImages
from backend.server.metrics import Metrics
from backend.server.protocol import Prediction, PredictRequest, Region, Task
from backend.settings import Settings
from dataset_tools.errors import PslgError, UnavailableError

__all__ = ["Clicks"]

logger = logging.getLogger(__name__)

_LOGITS_BYTES = 64_000_000
_WINDOW_BYTES = 1_000_000


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
        self._replayed: BoundedCache[bytes, npt.NDArray[np.float32]] = BoundedCache(_LOGITS_BYTES)
        self._windows: BoundedCache[tuple[str, str, tuple[Point, ...]], Box] = BoundedCache(_WINDOW_BYTES)
        self._outlined: BoundedCache[tuple[str, str, Point], tuple[Point, ...]] = BoundedCache(_WINDOW_BYTES)
        # One image is embedded at a time: two would only take each other's cores and memory.
        self._encode = threading.Lock()

    def answer(
        self, pipeline: PslgSam, request: PredictRequest, config: LabelingConfig, queue: ClickQueue
    ) -> Prediction:
        """The suggestions for an interactive request; empty where there is nothing to suggest, with a logged reason.

        Raises:
            UnavailableError: too many clicks are waiting.
        """
        empty: Prediction = {"result": [], "score": 0.0, "model_version": pipeline.model_version}
        task, context = request.tasks[0], request.context
        items = context.result if context is not None else []
        if not items:
            self._metrics.clicks.labels("empty").inc()
            return empty
        try:
            prompts = [orjson.dumps(item) for item in items]
            has_text = any(isinstance(item, dict) and item.get("type") == "textarea" for item in items)
            with queue.turn((request.project, task.id), prompts, immediate=has_text) as granted:
                if not granted:
                    self._metrics.clicks.labels("superseded").inc()
                    return empty
                prediction = self._answer(pipeline, request, config)
        except UnavailableError:
            self._metrics.clicks.labels("refused").inc()
            raise
        except Exception as error:
            # The editor shows nothing for an error: an empty answer ends its spinner, the reason goes into the log.
            self._metrics.clicks.labels("failed").inc()
            known = isinstance(error, PslgError)
            logger.warning("task %s: no suggestion: %s", task.id, error, exc_info=not known)
            return empty
        self._metrics.clicks.labels("answered" if prediction["result"] else "empty").inc()
        return prediction

    def _answer(self, pipeline: PslgSam, request: PredictRequest, config: LabelingConfig) -> Prediction:
        task, context = request.tasks[0], request.context
        assert context is not None  # noqa: S101 - answer() sees to it
        query = read_task(task, config)
        identity = self._images.identify(query.url, query.task_id)
        prompts = read_prompts(context.result, task, config, identity.size)
        regions: list[Region] = []
        scores: list[float] = []
        if prompts.texts:
            texts = read_task(task, config, prompts.texts)
            prediction = self._prelabeler.answer(pipeline, texts, config)
            regions += prediction["result"]
            scores.append(prediction["score"])
        for prompt in prompts.objects:
            found, score = self._refine(pipeline, prompt, request, config, query, identity)
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
        request: PredictRequest,
        config: LabelingConfig,
        query: TaskQuery,
        identity: ImageIdentity,
    ) -> tuple[list[Region], float]:
        """Regions and score for one object."""
        controls = config.controls_for(prompt.label)
        if not controls:
            logger.warning("task %s: no control for masks has the label %r", query.task_id, prompt.label)
            return [], 0.0
        region: FoundRegion | None = None
        if prompt.box is None:
            first = prompt.clicks[0].point
            region = self._lookup.under(request.tasks[0], first, prompt.label, config, identity.size)
            if region is None and not any(click.positive for click in prompt.clicks):
                logger.info("task %s: only negative clicks and no region under the first", query.task_id)
                return [], 0.0
            if region is None and prompt.clicks[0].positive and has_regions(request.tasks[0]):
                region = self._extended(pipeline, prompt, request.tasks[0], config, query, identity)
        prediction = self._replay(pipeline, prompt, region, query, identity)
        positive = [click.point for click in prompt.clicks if click.positive]
        mask = clean_mask(prediction.mask, self._settings.speck_area, self._settings.hole_area, positive)
        writer = RegionWriter(
            config.image,
            pipeline.model_version,
            self._settings.polygon_tolerance,
            self._settings.rle_warning_bytes,
            self._metrics.brush_bytes.observe,
        )
        score = min(max(prediction.predicted_iou, 0.0), 1.0)
        regions = writer.regions(
            mask,
            prompt.label,
            controls if region is None else [region.control],
            score=score,
            clicks=len(prompt.clicks),
            region_id=None if region is None else region.id,
        )
        return regions, score

    def _extended(
        self,
        pipeline: PslgSam,
        prompt: ObjectPrompt,
        task: Task,
        config: LabelingConfig,
        query: TaskQuery,
        identity: ImageIdentity,
    ) -> FoundRegion | None:
        """The region that the first click extends: it lies beside it, on the part of the object that is missing.

        It is so when most of what the click alone would outline is in the region already.
        """
        first = prompt.clicks[0].point
        key = (identity.sha256, pipeline.model_version, first)
        outlined = self._outlined.get(key)
        if outlined is None:
            alone = replace(prompt, clicks=prompt.clicks[:1])
            outlined = spread_points(self._replay(pipeline, alone, None, query, identity).mask)
            self._outlined.put(key, outlined, 1000)
        return self._lookup.holding(task, outlined, prompt.label, config, identity.size) if outlined else None

    def _replay(
        self,
        pipeline: PslgSam,
        prompt: ObjectPrompt,
        region: FoundRegion | None,
        query: TaskQuery,
        identity: ImageIdentity,
    ) -> MaskPrediction:
        """Decode the prompts one after the other, each with the logits of the one before, as they were drawn."""
        window = self._window(pipeline, prompt, region, query, identity)
        embedding = self._embedding(pipeline, window, query, identity)
        logits = None if region is None else pipeline.segmenter.mask_prompt(embedding, region.mask)
        state = hashlib.sha256(f"{pipeline.model_version} {embedding.key} {prompt.box}".encode())
        state.update(region.digest.encode() if region is not None else b"")
        prediction: MaskPrediction | None = None
        signs = np.array([click.positive for click in prompt.clicks], np.int64)
        first = 0 if prompt.box is not None else 1 if region is not None else first_replayed(signs)
        for count in range(first, len(prompt.clicks) + 1):
            for click in prompt.clicks[:first] if count == first else prompt.clicks[count - 1 : count]:
                state.update(f"{click.point.x:.3f} {click.point.y:.3f} {click.positive};".encode())
            before = self._replayed.get(state.digest()) if count < len(prompt.clicks) else None
            if before is not None:
                logits = before
                continue
            points = np.array([click.point for click in prompt.clicks[:count]], np.float32).reshape(-1, 2)
            prediction = pipeline.refine(embedding, Prompts(points, signs[:count], prompt.box, logits))
            logits = prediction.low_res_logits
            self._replayed.put(state.digest(), logits, logits.nbytes)
        assert prediction is not None  # noqa: S101 - there is a box or a click, and the last one is always decoded
        return prediction

    def _window(
        self,
        pipeline: PslgSam,
        prompt: ObjectPrompt,
        region: FoundRegion | None,
        query: TaskQuery,
        identity: ImageIdentity,
    ) -> Box:
        """The part of the image to embed: around the region or box that is refined, else what the clicks suggest."""
        target = prompt.box if region is None else Box.of_mask(region.mask)
        positive = [click.point for click in prompt.clicks if click.positive]
        if target is None:
            key = (identity.sha256, pipeline.model_version, tuple(positive))
            window = self._windows.get(key)
            if window is None:
                window = click_window(
                    pipeline.segmenter,
                    lambda tried: self._embedding(pipeline, tried, query, identity),
                    identity.size,
                    np.array(positive, np.float32),
                    np.ones(len(positive), np.int64),
                )
                self._windows.put(key, window, 500)
            return window
        window = pipeline.segmenter.window_for(target, identity.size)
        # Negative clicks outside change nothing: the mask ends at the window.
        outside = [point for point in positive if not window.contains(point)]
        if outside:
            target = _around([Point(target.x0, target.y0), Point(target.x1, target.y1), *outside])
            window = pipeline.segmenter.window_for(target, identity.size)
        return window

    def _embedding(self, pipeline: PslgSam, window: Box, query: TaskQuery, identity: ImageIdentity) -> Embedding:
        address = embedding_address(identity.sha256, pipeline.segmenter.encoder_hash, window)

        def compute() -> Embedding:
            _, image = self._images.load(query.url, query.task_id)
            return self._encode_window(pipeline, image, window)

        return self._embeddings.get_or_compute(address, compute)

    def _encode_window(self, pipeline: PslgSam, image: Image, window: Box) -> Embedding:
        with self._encode:
            return pipeline.embed(image, window)


def _around(points: list[Point]) -> Box:
    xs, ys = [point.x for point in points], [point.y for point in points]
    return Box(min(xs), min(ys), max(xs) + 1, max(ys) + 1)
