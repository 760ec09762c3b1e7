"""The demo's picture: each task's image with expression, box, foreground point, stored mask and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from backend.demo.verification import TaskOutcome
from backend.pipeline.pslg_sam import PslgSam
from dataset_tools import atomic, overlays
from dataset_tools.formats.coco_jsonl import CocoJsonl
from dataset_tools.image_files import read

PANEL_WIDTH = 420
"""Pixels."""


def write_contact_sheet(
    path: Path,
    dataset: CocoJsonl,
    outcomes: Sequence[TaskOutcome],
    pipeline: PslgSam,
    progress: Callable[[], None],
) -> None:
    """Draw one panel per task and write them as one PNG.

    Masks and scores are those that Label Studio stores; boxes and points, which a brush region cannot carry, come from
    running the same pipeline once more. The true mask is a white contour.

    Args:
        path: of the PNG.
        dataset: images and true masks.
        outcomes: the checked predictions.
        pipeline: the config that the backend serves.
        progress: called after each panel.
    """
    entries = [dataset.image(outcome.expression.image) for outcome in outcomes]
    height = round(PANEL_WIDTH * min(1.0, max(entry.height / entry.width for entry in entries)))
    panels = []
    for outcome in outcomes:
        expression = outcome.expression
        image = read(dataset.image(expression.image).path)
        prelabels = pipeline.prelabel(image, expression.expression)
        objects = [overlays.OverlayObject(mask=mask) for mask in outcome.masks]
        for index, prelabel in enumerate(prelabels):
            mask = outcome.masks[index] if index < len(outcome.masks) else None
            drawn = overlays.OverlayObject(mask=mask, box=prelabel.box, point=prelabel.point)
            objects[index : index + 1] = [drawn]
        truth = dataset.target(expression) if expression.ann_ids else None
        title = f"{outcome.task}: {expression.expression}"
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
