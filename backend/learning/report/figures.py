"""How the labelling of a project goes, in figures: from tasks with annotations and predictions, as Label Studio's API
and its JSON exports hold them.

Every accepted region (an outlined object of a submitted annotation) counts as one label, by what it cost
(``dataset_tools.label_studio.regions.fate_of``):

- ``unchanged``: the pre-label was submitted as it was.
- ``clicked``: a mask that one or more smart clicks, boxes or texts made.
- ``changed``: a mask of the model that was edited by hand.
- ``manual``: drawn by hand.

Time is Label Studio's ``lead_time``: seconds between opening and submitting, summed over edits. It counts pauses, so
that of an annotation at most ``Costs.longest`` seconds per label are counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from backend.learning.annotations.changes import annotation_seen
from dataset_tools.errors import DatasetError, MaskError, ProtocolError
from dataset_tools.label_studio.accepted_words import accepted_words, taught
from dataset_tools.label_studio.annotations import annotations_of, objects_of, results_of
from dataset_tools.label_studio.exports import task_expressions
from dataset_tools.label_studio.import_rules import ImportRules
from dataset_tools.label_studio.learnt_nouns import LearntNoun
from dataset_tools.label_studio.note_counts import NoteCounts
from dataset_tools.label_studio.notes import NOTE, answered, read_notes
from dataset_tools.label_studio.regions import Region, RegionInfo, agreement, fate_of, is_accepted, read_info
from dataset_tools.records import FATES, Fate

__all__ = ["Costs", "CountedLabel", "Labelling", "Quality", "Saving", "labelling_of"]

GOOD_IOU = 0.85
ENOUGH_BY_HAND = 10
"""Labels drawn by hand from which their time stands for the cost by hand."""


@dataclass(frozen=True)
class Costs:
    """What labels are compared with.

    Attributes:
        manual_seconds: time to outline one object by hand. COCO took 22 worker hours for 1,000 objects (Lin et al.
            2014), which is 79 s.
        longest: most seconds per label that count; longer ones were pauses.
        hourly: price of an hour, in any currency; 0 leaves the price out.
    """

    manual_seconds: float = 79.0
    longest: float = 600.0
    hourly: float = 0.0


@dataclass(frozen=True)
class CountedLabel:
    """One accepted region.

    Attributes:
        day: when it was submitted (UTC).
        fate: what it cost.
        category: canonical name or label, ``(none)`` without one.
        clicks: smart clicks that made it; 0 for a pre-label, None for a mask that no model made.
        seconds: its share of the annotation's time, None if Label Studio has none.
        by_hand: every label of its annotation was drawn by hand, so that its time is that of such labels.
    """

    day: date
    fate: Fate
    category: str
    clicks: int | None
    seconds: float | None
    by_hand: bool = False


@dataclass
class Quality:
    """Predictions of one model version beside what was accepted for the same tasks.

    Attributes:
        ious: of each task: mean over its labels of the IoU of all masks predicted and all masks accepted.
        scores: of each task, the prediction's.
        first: when the first of the predictions was made.
    """

    ious: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    first: str = ""

    @property
    def iou(self) -> float:
        """Mean IoU."""
        return float(np.mean(self.ious))

    @property
    def good(self) -> float:
        """Share of the tasks with an IoU of at least 0.85."""
        return float(np.mean([iou >= GOOD_IOU for iou in self.ious]))

    @property
    def score(self) -> float:
        """Mean score: what a calibrated model promised for ``good``."""
        return float(np.mean(self.scores))


@dataclass(frozen=True)
class Saving:
    """Time against outlining by hand: ``labels * manual_seconds - seconds``, over the labels that were made with the
    model and whose time is known.

    Attributes:
        labels: how many.
        seconds: what they took.
        manual_seconds: what they would have taken by hand.
        price: of the difference, None without a price of the hour.
        baseline: seconds by hand of one label.
        measured: labels drawn by hand in this project that ``baseline`` is the mean of; 0: it is the parameter.
    """

    labels: int
    seconds: float
    manual_seconds: float
    price: float | None
    baseline: float
    measured: int

    @property
    def saved_seconds(self) -> float:
        """Negative where working by hand would have been faster."""
        return self.manual_seconds - self.seconds

    @property
    def share(self) -> float:
        """Share of the time by hand that was saved."""
        return self.saved_seconds / self.manual_seconds if self.manual_seconds else 0.0


@dataclass
class Labelling:
    """Everything counted.

    Attributes:
        tasks: that were looked at.
        annotations: submitted ones; ``empty`` of them hold no label.
        skipped: annotations that ended with "Skip".
        labels: every accepted region.
        quality: model version -> predictions beside accepted masks.
        accepted: (expression, category) of accepted regions that have words and a label, once in each annotation.
        damaged: regions that could not be compared, each with the reason.
        notes: expressions that had no answer, of the tasks' field ``pslg_note``.
    """

    tasks: int = 0
    annotations: int = 0
    empty: int = 0
    skipped: int = 0
    labels: list[CountedLabel] = field(default_factory=list)
    quality: dict[str, Quality] = field(default_factory=dict)
    accepted: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    notes: NoteCounts = field(default_factory=NoteCounts)

    def nouns(self) -> dict[str, LearntNoun]:
        """Nouns that no lexicon holds and that annotators use for a label."""
        return taught(self.accepted)

    def fates(self) -> Counter[Fate]:
        """Labels by what they cost."""
        return Counter(label.fate for label in self.labels)

    def share(self, fate: Fate) -> float:
        """Share of the labels with this fate."""
        return self.fates()[fate] / len(self.labels) if self.labels else 0.0

    def by_day(self) -> dict[date, list[CountedLabel]]:
        """Labels of each day that has any, in order."""
        days: defaultdict[date, list[CountedLabel]] = defaultdict(list)
        for label in self.labels:
            days[label.day].append(label)
        return dict(sorted(days.items()))

    def by_category(self) -> dict[str, list[CountedLabel]]:
        """Labels of each category, most labels first."""
        found: defaultdict[str, list[CountedLabel]] = defaultdict(list)
        for label in self.labels:
            found[label.category].append(label)
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))

    def saving(self, costs: Costs) -> Saving:
        """Of labels made with the model, against the same by hand; those without a time are on neither side.

        What a label costs by hand is measured where annotators drew at least ``ENOUGH_BY_HAND`` of this project's.
        """
        timed = [label for label in self.labels if label.seconds is not None]
        seconds = [min(label.seconds or 0.0, costs.longest) for label in timed if label.fate != "manual"]
        own = [min(label.seconds or 0.0, costs.longest) for label in timed if label.by_hand]
        measured = len(own) if len(own) >= ENOUGH_BY_HAND else 0
        baseline = float(np.mean(own)) if measured else costs.manual_seconds
        by_hand = len(seconds) * baseline
        price = (by_hand - sum(seconds)) / 3600 * costs.hourly if costs.hourly else None
        return Saving(len(seconds), sum(seconds), by_hand, price, baseline, measured)

    def figures(self, costs: Costs) -> dict[str, Any]:
        """The figures as plain values."""
        saving = self.saving(costs)
        return {
            "tasks": self.tasks,
            "annotations": self.annotations,
            "empty": self.empty,
            "skipped": self.skipped,
            "labels": len(self.labels),
            "fates": {fate: self.fates()[fate] for fate in FATES},
            "clicks_per_label": mean([label.clicks for label in self.labels if label.clicks is not None]),
            "median_seconds": median([label.seconds for label in self.labels if label.seconds is not None]),
            "labels_by_day": {day.isoformat(): len(labels) for day, labels in self.by_day().items()},
            "labels_by_category": {name: len(labels) for name, labels in self.by_category().items()},
            "quality": {
                version: {"tasks": len(row.ious), "mIoU": row.iou, "good": row.good, "score": row.score}
                for version, row in self.quality.items()
            },
            "nouns": {noun: asdict(learnt) for noun, learnt in self.nouns().items()},
            "abstentions": dict(self.notes.reasons),
            "unknown_words": dict(self.notes.words),
            "saving": {**asdict(saving), "saved_seconds": saving.saved_seconds, "share": saving.share},
            "costs": asdict(costs),
        }


def labelling_of(tasks: Iterable[Mapping[str, Any]]) -> Labelling:
    """Count tasks; what cannot be read is left out and said in ``damaged``."""
    found = Labelling()
    for task in tasks:
        found.tasks += 1
        found.notes.add(read_notes((task.get("data") or {}).get(NOTE)))
        submitted = []
        texts = task_expressions(task, ImportRules()) if isinstance(task.get("data"), dict) else []
        for given in task.get("annotations") or task.get("completions") or []:
            if isinstance(given, dict) and given.get("was_cancelled"):
                found.skipped += 1
                continue
            try:
                if isinstance(given, dict):
                    annotation_seen(given)
                (annotation,) = annotations_of({"annotations": [given]})
                _add_annotation(found, annotation, texts)
            except (ProtocolError, DatasetError) as error:
                found.damaged.append(f"task {task.get('id')}: {error}")
                continue
            submitted.append(annotation)
        if submitted:
            latest = max(submitted, key=lambda item: str(item.get("updated_at") or item.get("created_at") or ""))
            _add_quality(found, task, latest)
    return found


def mean(values: list[int] | list[float]) -> float | None:
    """The mean, None of nothing."""
    return float(np.mean(values)) if values else None


def median(values: list[float]) -> float | None:
    """The median, None of nothing."""
    return float(np.median(values)) if values else None


def _add_annotation(found: Labelling, annotation: Mapping[str, Any], texts: Sequence[str]) -> None:
    seen = annotation_seen(annotation)
    day = datetime.fromtimestamp(seen.created_at / 1e6, UTC).date()
    regions: Sequence[RegionInfo]
    try:
        regions = objects_of(annotation)
    except (DatasetError, MaskError):  # _add_quality says so
        regions = [read_info(result, annotation) for result in annotation["result"] if is_accepted(result)]
    found.accepted += accepted_words(regions, annotation["result"], texts)
    found.annotations += 1
    found.empty += not regions
    lead_time = annotation.get("lead_time")
    seconds = float(lead_time) / len(regions) if isinstance(lead_time, int | float) and regions else None
    fates = [fate_of(region, texts) for region in regions]
    for region, fate in zip(regions, fates, strict=True):
        clicks = None if fate == "manual" else region.clicks or 0
        label = CountedLabel(day, fate, region.label or "(none)", clicks, seconds, by_hand=set(fates) == {"manual"})
        found.labels.append(label)


def _add_quality(found: Labelling, task: Mapping[str, Any], annotation: Mapping[str, Any]) -> None:
    predictions = [item for item in task.get("predictions") or [] if isinstance(item, dict)]
    if not predictions:
        return
    try:
        accepted = _regions(annotation)
    except (DatasetError, MaskError) as error:
        found.damaged.append(f"task {task.get('id')}: {error}")
        return
    for prediction in predictions:
        version = str(prediction.get("model_version") or "(no version)")
        try:
            iou = agreement(_regions({**prediction, "result": answered(prediction.get("result") or [])}), accepted)
        except (DatasetError, MaskError) as error:
            found.damaged.append(f"task {task.get('id')}, prediction of {version}: {error}")
            continue
        row = found.quality.setdefault(version, Quality())
        row.ious.append(iou)
        row.scores.append(float(prediction.get("score") or 0.0))
        made = str(prediction.get("created_at") or "")
        row.first = min(filter(None, (row.first, made)), default="")


def _regions(body: Mapping[str, Any]) -> list[Region]:
    return objects_of({**body, "result": list(results_of(body.get("result") or []))})
