"""The demo's picture: each task's image with expression, box, foreground point, stored mask and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from backend.demo.verification import TaskOutcome
from backend.pipeline.pslg_sam import PslgSam
from dataset_tools import atomic, overlays

PANEL_WIDTH = 420
"""Pixels."""


def write_contact_sheet(
    path: Path,
    outcomes: Sequence[TaskOutcome],
    pipeline: PslgSam,
    progress: Callable[[], None],
) -> None:
    """Draw one panel per task and write them as one PNG.

    Masks and scores are those that Label Studio stores; boxes and points, which a brush region cannot carry, come from
    running the same pipeline once more. The true mask is a white contour.

    Args:
        path: of the PNG.
        outcomes: the checked predictions.
        pipeline: the config that the backend serves.
        progress: called after each panel.
    """
    images = [outcome.question.image for outcome in outcomes]
    height = round(PANEL_WIDTH * min(1.0, max(image.height / image.width for image in images)))
    panels = []
    for outcome in outcomes:
        question = outcome.question
        image = question.image.pixels()
        prelabels = pipeline.prelabel(image, question.expression.text)
        objects = [overlays.OverlayObject(mask=mask) for mask in outcome.masks]
        for index, prelabel in enumerate(prelabels):
            mask = outcome.masks[index] if index < len(outcome.masks) else None
            drawn = overlays.OverlayObject(mask=mask, box=prelabel.box, point=prelabel.point)
            objects[index : index + 1] = [drawn]
        truth = question.target() if question.targets else None
        title = f"{outcome.task}: {question.expression.text}"
        panels.append(
            overlays.panel(image, objects, title, _detail(outcome), truth=truth, size=PANEL_WIDTH, height=height)
        )
        progress()
    sheet = overlays.contact_sheet(panels)
    ok, encoded = cv2.imencode(".png", np.ascontiguousarray(sheet[:, :, ::-1]))
    assert ok, "OpenCV encodes every uint8[H, W, 3] array as PNG"  # noqa: S101
    atomic.write_bytes(path, encoded.tobytes())


def _detail(outcome: TaskOutcome) -> str:
    if outcome.absent:
        return "not in the image: " + ("answered all the same" if outcome.answered else "abstained, as it should")
    if not outcome.answered:
        return "no answer, IoU 0.00"
    score = "none" if outcome.score is None else f"{outcome.score:.2f}"
    return f"{len(outcome.masks)} mask{'s' * (len(outcome.masks) != 1)}, score {score}, IoU {outcome.iou or 0.0:.2f}"
