"""The tasks of a Label Studio project as candidates of a ranking: scores, disagreement, categories, looks.

What is known is used: answers that the server has kept, else the prediction of this model version that Label Studio
stores; the rest is computed, and kept, so that a ranking that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backend.learning.ranking.image_features import ImageFeatures, ImageLook, same_look
from backend.learning.ranking.strategies import Candidate, disagreement, order
from backend.pipeline import PslgSam
from backend.pipeline.types import Box, Mask, Prelabels
from backend.server.editor.labeling_config import LabelingConfig
from backend.server.editor.prompts import TaskQuery, default_category, read_task
from backend.server.protocol import Task
from backend.server.service import LabelingService
from backend.turns import Priority
from dataset_tools import metrics
from dataset_tools.errors import PslgError
from dataset_tools.expressions import parser as expression_parser
from dataset_tools.label_studio.notes import answered, stated
from dataset_tools.label_studio.regions import is_accepted, read_info, read_region

__all__ = ["RankedTask", "TaskRanker"]

_WITHOUT_SCORES = ("random", "diversity")


@dataclass(frozen=True)
class RankedTask:
    """A task in the queue.

    Attributes:
        rank: its place, from 1.
        id: Label Studio's.
        score: calibrated probability that the pre-label is accepted; 0.0 for an abstention, None if not computed.
        disagreement: see ``ranking.disagreement``.
        category: asked for, or found; None if not known.
    """

    rank: int
    id: int
    score: float | None
    disagreement: float
    category: str | None


@dataclass(frozen=True, eq=False)
class _SeenTask:
    """A task that was looked at: what the ranking needs of it, without masks and answers."""

    id: int
    labelled: bool
    score: float | None
    disagreement: float
    category: str | None
    image: str
    look: ImageLook


class TaskRanker:
    """Looks at the tasks of one project, page by page, and orders those without an annotation.

    Args:
        service: images, kept answers and the models.
        pipeline: the one that answers the project.
        config: the project's labeling config.
        features: looks of images.
        strategy: one of ``ranking.STRATEGIES``.

    Attributes:
        failures: one line for each task that could not be looked at.
        skipped: tasks that annotators skipped; they are neither labelled nor candidates.
    """

    def __init__(
        self,
        service: LabelingService,
        pipeline: PslgSam,
        config: LabelingConfig,
        features: ImageFeatures,
        strategy: str,
    ) -> None:
        self._service = service
        self._pipeline = pipeline
        self._config = config
        self._features = features
        self._strategy = strategy
        self._seen: list[_SeenTask] = []
        self.failures: list[str] = []
        self.skipped = 0

    def add(self, rows: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[int]:
        """ImageLook at pages of tasks as the API gives them (with annotations and predictions); yields tasks done."""
        with ThreadPoolExecutor(self._service.settings.prelabel_fetchers) as pool:
            for page in rows:
                for row, found in zip(page, pool.map(self._look_at, page), strict=True):
                    if isinstance(found, _SeenTask):
                        self._seen.append(found)
                    if isinstance(found, str):
                        self.failures.append(f"task {row['id']}: {found}")
                    self.skipped += found is None
                    yield 1

    def ranked(self, seed: int = 0) -> list[RankedTask]:
        """All candidates seen, the one to label first in front."""
        if not self._seen:
            return []
        scenes = same_look({item.image: item.look for item in self._seen})
        everything = [
            Candidate(item.id, item.score, item.disagreement, item.category, item.look.vector, scenes[item.image])
            for item in self._seen
        ]
        waiting = [index for index, item in enumerate(self._seen) if not item.labelled]
        labelled = [everything[index] for index, item in enumerate(self._seen) if item.labelled]
        places = order([everything[index] for index in waiting], self._strategy, labelled, seed)
        chosen = [self._seen[waiting[place]] for place in places]
        return [
            RankedTask(rank, item.id, item.score, item.disagreement, item.category)
            for rank, item in enumerate(chosen, 1)
        ]

    def _look_at(self, row: Mapping[str, Any]) -> _SeenTask | str | None:
        """What a task is; a text if it cannot be looked at, None if it was skipped."""
        labelled = bool(row.get("total_annotations"))
        if not labelled and row.get("cancelled_annotations"):
            return None
        try:
            query = read_task(Task.model_validate(row), self._config)
            image = self._service.images.load(query.url, query.task_id)
            look = self._features.of(image.identity, image.pixels)
            seen = _SeenTask(
                id=int(row["id"]),
                labelled=labelled,
                score=None,
                disagreement=0.0,
                category=self._asked_for(query),
                image=image.identity,
                look=look,
            )
            if labelled:
                return replace(seen, category=_labelled_category(row) or seen.category)
            return seen if self._strategy in _WITHOUT_SCORES else self._scored(seen, row, query)
        except PslgError as error:
            return str(error)

    def _scored(self, seen: _SeenTask, row: Mapping[str, Any], query: TaskQuery) -> _SeenTask:
        predictions = sorted(row.get("predictions") or [], key=lambda item: int(item["id"]), reverse=True)
        version = self._pipeline.model_version
        answers = self._service.prelabeler.expressions.kept_answers(self._pipeline, query, self._config)
        stored = next((item for item in predictions if item.get("model_version") == version), None)
        other = next((item for item in predictions if item.get("model_version") != version), None)
        if answers is None and stored is not None:
            between = None if other is None else _agreement(_union(stored), _union(other))
            score = min(max(float(stored.get("score") or 0.0), 0.0), 1.0)
            return replace(seen, score=score, disagreement=disagreement(between))
        if answers is None:
            answers = self._service.prelabeler.expressions.answers(self._pipeline, query, self._config, Priority.BATCH)
        items = [item for answer in answers for item in answer]
        mask = np.logical_or.reduce([item.mask for item in items]) if items else None
        between = None if other is None else _agreement(mask, _union(other))
        categories = [item.category for item in items if item.category]
        return replace(
            seen,
            score=sum(answer.score for answer in answers) / len(answers),
            disagreement=disagreement(between, *_inner_agreements(answers)),
            category=seen.category or next(iter(categories), None),
        )

    def _asked_for(self, query: TaskQuery) -> str | None:
        for text in query.expressions:
            category = expression_parser.parse(self._config.asked(text), self._config.own_categories).category
            if category is not None:
                return category
        defaults = (default_category(query, self._config, text) for text in query.expressions)
        return next(filter(None, defaults), query.category)


def _inner_agreements(answers: Sequence[Prelabels]) -> Iterator[float | None]:
    """Of every object: its masks before and after boundary optimization, its box and the box around its mask."""
    for answer in answers:
        for item in answer:
            yield item.scores.get("boundary_agreement")
            yield item.box.iou(Box.of_mask(item.mask))


def _agreement(one: Mask | None, other: Mask | None) -> float | None:
    """IoU of two versions' masks: 1 if neither has any, 0 if only one has; None if their sizes differ."""
    if one is None or other is None:
        return float(one is None and other is None)
    return metrics.iou(one, other) if one.shape == other.shape else None


def _union(prediction: Mapping[str, Any]) -> Mask | None:
    """All outlined objects of a stored prediction as one mask; None without any.

    Raises:
        MaskError, DatasetError: a region is damaged.
    """
    regions = [result for result in answered(prediction.get("result") or []) if is_accepted(result)]
    masks = [read_region(result, prediction).mask for result in regions]
    return np.logical_or.reduce(masks) if masks else None


def _labelled_category(row: Mapping[str, Any]) -> str | None:
    """The first label that an annotator gave."""
    for annotation in row.get("annotations") or []:
        for result in stated(annotation.get("result") or []):
            if is_accepted(result):
                return read_info(result, annotation).label
    return None
