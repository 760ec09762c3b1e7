"""Interactive requests: clicks, boxes, strokes and texts -> suggestions.

Stateless: the answer is a function of the request and the model. What is kept (embeddings, logits of prompt prefixes)
only makes it faster.
"""

from __future__ import annotations

import logging
from functools import partial

import orjson

from backend.pipeline import PslgSam
from backend.pipeline.segmentation.embedding_store import EmbeddingStore
from backend.pipeline.segmentation.mask_cleaning import clean_mask
from backend.pipeline.segmentation.replay import ReplayCache, outlined, replay
from backend.server.answers.click_queue import ClickQueue
from backend.server.answers.prelabeling import Prelabeler
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.editor.prompts import ObjectPrompt, read_prompts, read_task
from backend.server.editor.region_lookup import FoundRegion, RegionLookup, has_regions
from backend.server.editor.regions import RegionWriter
from backend.server.images import EditorImage, TaskImages
from backend.server.metrics import Metrics
from backend.server.protocol import Prediction, PredictRequest, Region, Task
from backend.settings import Settings
from dataset_tools.errors import PslgError, UnavailableError

__all__ = ["Clicks"]

logger = logging.getLogger(__name__)


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
        self._kept = ReplayCache()

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
        image = self._images.load(query.url, query.task_id)
        prompts = read_prompts(context.result, task, config, image.size)
        regions: list[Region] = []
        scores: list[float] = []
        if prompts.texts:
            texts = read_task(task, config, prompts.texts)
            prediction = self._prelabeler.answer(pipeline, texts, config)
            regions += prediction["result"]
            scores.append(prediction["score"])
        for prompt in prompts.objects:
            found, score = self._refine(pipeline, prompt, task, config, image)
            regions += found
            scores.append(score)
        return {
            "result": regions,
            "score": sum(scores) / len(scores) if regions else 0.0,
            "model_version": pipeline.model_version,
        }

    def _refine(
        self, pipeline: PslgSam, prompt: ObjectPrompt, task: Task, config: LabelingConfig, image: EditorImage
    ) -> tuple[list[Region], float]:
        """Regions and score for one object."""
        controls = config.controls_for(prompt.label)
        if not controls:
            logger.warning("task %s: no control for masks has the label %r", task.id, prompt.label)
            return [], 0.0
        segmenter = pipeline.segmenter
        embed = partial(self._embeddings.embed, segmenter, image.identity, image.pixels)
        positive = [click.point for click in prompt.clicks if click.positive]
        region: FoundRegion | None = None
        if prompt.box is None:
            first = prompt.clicks[0]
            region = self._lookup.under(task, first.point, prompt.label, config, image.size)
            if region is None and not positive:
                logger.info("task %s: only negative clicks and no region under the first", task.id)
                return [], 0.0
            if region is None and first.positive and has_regions(task):
                # The click may lie beside a region, on the part of its object that is missing.
                kept = self._kept.of(pipeline.model_version, image.identity)
                points = outlined(segmenter, embed, image.size, prompt.prompts, kept)
                region = self._lookup.holding(task, points, prompt.label, config, image.size)
        digest, mask = ("", None) if region is None else (region.digest, region.mask)
        kept = self._kept.of(pipeline.model_version, image.identity, digest)
        prediction = replay(segmenter, embed, image.size, prompt.prompts, mask, kept)
        cleaned = clean_mask(prediction.mask, self._settings.speck_area, self._settings.hole_area, positive)
        writer = RegionWriter(
            config.image,
            pipeline.model_version,
            self._settings.polygon_tolerance,
            self._settings.rle_warning_bytes,
            self._metrics.brush_bytes.observe,
        )
        score = min(max(prediction.predicted_iou, 0.0), 1.0)
        regions = writer.regions(
            cleaned,
            prompt.label,
            controls if region is None else [region.control],
            score=score,
            clicks=len(prompt.clicks),
            region_id=None if region is None else region.id,
        )
        return regions, score
