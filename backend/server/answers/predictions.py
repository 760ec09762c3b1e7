"""Predictions for Label Studio from the pipeline's answers: regions of objects and candidates, scores, notes.

A note says why an expression got no object; it stands in the prediction, where the labeling config has a field for it,
and in the task's data (``background.TaskNotes``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from backend.pipeline import PslgSam
from backend.pipeline.types import Prelabels
from backend.server.editor.labeling_config import Control, LabelingConfig
from backend.server.editor.prompts import TaskQuery
from backend.server.editor.regions import RegionWriter
from backend.server.metrics import Metrics
from backend.server.protocol import Prediction, Region
from backend.settings import Settings
from dataset_tools.categories import category_named
from dataset_tools.label_studio.notes import NOTE, Note, candidate
from dataset_tools.label_studio.regions import new_id

__all__ = ["BUSY", "NO_LABEL", "Predictions", "note_region", "notes_of"]

logger = logging.getLogger(__name__)

BUSY = "busy"
"""Reason of a note in place of a suggestion: too many clicks were waiting."""
NO_LABEL = "no-label"
"""Reason of a note: the labeling config has no label for what was found. The others are the pipeline's codes."""


class Predictions:
    """Writes predictions and counts what they hold. Thread-safe."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics

    def of(
        self,
        pipeline: PslgSam,
        query: TaskQuery,
        answers: Sequence[Prelabels],
        config: LabelingConfig,
        notes: Sequence[Note] | None = None,
    ) -> Prediction:
        """The answers to a query's expressions in the form that Label Studio stores; notes and candidates with them.

        ``notes`` are those of ``notes_of`` where the caller has them already.
        """
        writer = RegionWriter.of(config, pipeline.model_version, self._settings, self._metrics.brush_bytes.observe)
        began = time.perf_counter()
        regions: list[Region] = []
        scores: list[float] = []
        notes = notes_of(query, answers, config) if notes is None else notes
        for note in notes:
            level = logging.WARNING if note.reason == NO_LABEL else logging.INFO
            logger.log(level, "task %s: no mask for %s", query.task_id, note)
        for expression, answer in zip(query.expressions, answers, strict=True):
            places: dict[str | None, tuple[str, tuple[Control, ...]] | None] = {}
            if answer.left_out:
                logger.warning(
                    "task %s: %d objects found for %r: the %d most certain go to Label Studio (PSLG_MAX_OBJECTS is %d,"
                    " PSLG_DEADLINE %g s)",
                    query.task_id,
                    len(answer) + answer.left_out,
                    expression[:200],
                    len(answer),
                    self._settings.max_objects,
                    self._settings.deadline,
                )
            labelled = True
            for item in answer.items:
                if item.category not in places:
                    label = config.label_of(item.category or query.category)
                    places[item.category] = None if label is None else (label, config.controls_for(label))
                place = places[item.category]
                if place is None:
                    labelled = False
                    continue
                regions += writer.regions(item.mask, *place, score=item.score, expression=expression)
            scores.append(answer.score if labelled else 0.0)
        self._metrics.prelabels.labels("answered" if regions else "abstained").inc()
        self._metrics.count_notes(notes)
        score = sum(scores) / len(scores) if regions else 0.0
        regions += self._candidates(writer, query, answers, config)
        regions += note_region(notes, config)
        self._metrics.count_stages({"write": time.perf_counter() - began})
        return {"result": regions, "score": score, "model_version": pipeline.model_version}

    def _candidates(
        self, writer: RegionWriter, query: TaskQuery, answers: Sequence[Prelabels], config: LabelingConfig
    ) -> list[Region]:
        """The objects that fit alike, marked as candidates; what has no label is none."""
        regions: list[Region] = []
        for expression, answer in zip(query.expressions, answers, strict=True):
            shown = [
                (item, label)
                for item in answer.candidates
                if (label := config.label_of(item.category or query.category)) is not None
            ]
            for number, (item, label) in enumerate(shown, 1):
                regions += writer.regions(
                    item.mask,
                    label,
                    config.controls_for(label),
                    score=item.score,
                    expression=expression,
                    mark=candidate(number, len(shown)),
                )
        return regions


def notes_of(query: TaskQuery, answers: Sequence[Prelabels], config: LabelingConfig) -> tuple[Note, ...]:
    """One note for each expression that was not answered, or whose objects the labeling config has no label for."""
    found: list[Note] = []
    for expression, answer in zip(query.expressions, answers, strict=True):
        if answer.abstained is not None:
            message = answer.abstained.message
            if answer.candidates:
                message += (
                    f" {len(answer.candidates)} candidates are shown: keep the one that is meant, delete the rest."
                )
            found.append(Note(expression, answer.abstained.code, message))
        categories = {item.category or query.category for item in answer.items}
        for category in sorted((name for name in categories if config.label_of(name) is None), key=str):
            what = repr(category_named(category).display) if category else "an expression without a known category"
            labels = ", ".join(label.stored for label in config.labels)
            found.append(Note(expression, NO_LABEL, f"the labeling config has no label for {what} (labels: {labels})"))
    return tuple(found)


def note_region(notes: Sequence[Note], config: LabelingConfig) -> list[Region]:
    """The notes as a text of the labeling config's field for them; none without notes or without a field."""
    if not notes or not config.has_note:
        return []
    return [
        {
            "id": new_id(),
            "from_name": NOTE,
            "to_name": config.image,
            "type": "textarea",
            "origin": "prediction",
            "value": {"text": [str(note) for note in notes]},
            **({} if config.item is None else {"item_index": config.item}),
        }
    ]
