"""Checks what Label Studio stored against what the demo promised, and against the true masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from label_studio_sdk.label_interface import LabelInterface

from backend.demo.label_studio_client import StoredPrediction
from dataset_tools import brush_rle, metrics
from dataset_tools.errors import MaskError
from dataset_tools.label_studio.notes import answered
from dataset_tools.labelled import Question
from dataset_tools.metrics import Overlap

Mask = npt.NDArray[np.bool_]

CONVENTION = metrics.CONVENTIONS["native"]


@dataclass(frozen=True, eq=False)
class TaskOutcome:
    """The stored prediction of one task.

    Attributes:
        task: Label Studio's task id.
        question: the task's image and expression with its true targets.
        masks: bool[H, W] of each stored region.
        overlap: of the union of ``masks`` with the union of the true masks; None for an absent object.
        score: as stored, None without one.
        problems: what is wrong with the prediction itself; empty when it is well formed.
    """

    task: int
    question: Question
    masks: tuple[Mask, ...]
    overlap: Overlap | None
    score: float | None
    problems: tuple[str, ...] = ()

    @property
    def iou(self) -> float | None:
        """IoU with the true masks, None for an absent object."""
        return None if self.overlap is None else CONVENTION.iou(self.overlap)

    @property
    def absent(self) -> bool:
        """Whether the expression names an object that is not in the image."""
        return not self.question.targets

    @property
    def answered(self) -> bool:
        """Whether the prediction marks anything."""
        return any(bool(mask.any()) for mask in self.masks)


@dataclass(frozen=True)
class Summary:
    """The figures of a run; ``as_json`` is what ``summary.json`` holds.

    Attributes:
        tasks, predictions: how many there are in the project.
        model_version: the backend's.
        mean_iou, precision_at_50: over the tasks whose object is present, no answer counting as IoU 0; None without
            such a task.
        absent_abstained: whether every task for an absent object was left without a mask; None without such a task.
        contact_sheet: path of the picture.
        failures: why the run failed; empty when it did not.
    """

    tasks: int
    predictions: int
    model_version: str
    mean_iou: float | None
    precision_at_50: float | None
    absent_abstained: bool | None
    contact_sheet: str
    failures: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Plain values under the published names."""
        return {
            "tasks": self.tasks,
            "predictions": self.predictions,
            "model_version": self.model_version,
            "mIoU": self.mean_iou,
            "P@0.5": self.precision_at_50,
            "absent_abstained": self.absent_abstained,
            "contact_sheet": self.contact_sheet,
            "failures": list(self.failures),
        }


def check_predictions(
    questions: Mapping[int, Question],
    stored: Sequence[StoredPrediction],
    model_version: str,
    label_config: str,
) -> list[TaskOutcome]:
    """Compare the stored predictions with the tasks, one TaskOutcome per task in the order of ``questions``.

    Args:
        questions: by task id.
        stored: every prediction of the project.
        model_version: what each prediction must carry.
        label_config: the project's labeling config (XML).
    """
    interface = LabelInterface(label_config)
    outcomes = []
    for task, question in questions.items():
        of_task = [prediction for prediction in stored if prediction.task == task]
        matching = [prediction for prediction in of_task if prediction.model_version == model_version]
        problems = []
        if len(matching) != 1 or len(of_task) != 1:
            versions = [prediction.model_version for prediction in of_task]
            problems.append(f"has predictions of the versions {versions}, expected exactly one of {model_version}")
        masks: list[Mask] = []
        for prediction in matching[:1]:
            problems += _label_problems(interface, prediction)
            decoded, damaged = _decode(prediction, question.image.height, question.image.width)
            masks += decoded
            problems += damaged
        outcomes.append(
            TaskOutcome(
                task=task,
                question=question,
                masks=tuple(masks),
                overlap=_overlap(question, masks) if question.targets else None,
                score=matching[0].score if matching else None,
                problems=tuple(problems),
            )
        )
    return outcomes


def quality_failures(outcomes: Sequence[TaskOutcome], minimum_miou: float) -> list[str]:
    """What is not good enough: no mask for a present object, an answer for an absent one, mIoU below the minimum."""
    failures = [
        f"task {outcome.task}: no mask for {outcome.question.expression.text!r}, which is in the image"
        for outcome in outcomes
        if not outcome.absent and not outcome.answered
    ]
    failures += [
        f"task {outcome.task}: a mask for {outcome.question.expression.text!r}, which is not in the image"
        for outcome in outcomes
        if outcome.absent and outcome.answered
    ]
    mean_iou, _ = present_figures(outcomes)
    if mean_iou is not None and mean_iou < minimum_miou:
        failures.append(f"mIoU {mean_iou:.3f} is below {minimum_miou:.2f}")
    return failures


def present_figures(outcomes: Sequence[TaskOutcome]) -> tuple[float | None, float | None]:
    """mIoU and P@0.5 over the tasks whose object is present; (None, None) without such a task."""
    overlaps = [outcome.overlap for outcome in outcomes if outcome.overlap is not None]
    if not overlaps:
        return None, None
    figures = metrics.summarize(overlaps, CONVENTION)
    return figures["mIoU"], figures["P@0.5"]


def absent_abstained(outcomes: Sequence[TaskOutcome]) -> bool | None:
    """Whether no task for an absent object got a mask; None without such a task."""
    absent = [outcome for outcome in outcomes if outcome.absent]
    return not any(outcome.answered for outcome in absent) if absent else None


def _label_problems(interface: LabelInterface, prediction: StoredPrediction) -> list[str]:
    errors = interface.validate_prediction(
        {"model_version": prediction.model_version, "score": prediction.score or 0.0, "result": prediction.result},
        return_errors=True,
    )
    return [f"does not fit the labeling config: {str(error)[:300]}" for error in errors]


def _decode(prediction: StoredPrediction, height: int, width: int) -> tuple[list[Mask], list[str]]:
    masks, problems = [], []
    for region in answered(prediction.result):
        if region.get("type") != "brushlabels":
            continue
        size = (region.get("original_height"), region.get("original_width"))
        if size != (height, width):
            problems.append(f"has a region for an image of {size} instead of {(height, width)} (height, width)")
            continue
        try:
            masks.append(brush_rle.decode(region["value"]["rle"], height, width))
        except (KeyError, MaskError) as error:
            problems.append(f"has a mask that does not decode at {height} x {width}: {error}")
    return masks, problems


def _overlap(question: Question, masks: Sequence[Mask]) -> Overlap:
    truth = question.target()
    union = np.zeros_like(truth)
    for mask in masks:
        union |= mask
    return CONVENTION.overlap(union, truth)
