"""Quality of the compact grounder's answers to expressions, by boxes: for choosing scales and thresholds.

``pslg evaluate`` gives the figures of the whole pipeline, by masks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from backend.pipeline.grounding.compact.detections import Detection
from backend.pipeline.grounding.compact.grounder import answer
from backend.pipeline.grounding.compact.network import Calibration
from backend.pipeline.types import GroundingResult
from backend.training.grounder.evaluation import MATCH_IOU
from dataset_tools.categories import canonical
from dataset_tools.expressions import parser as expression_parser
from dataset_tools.formats.coco_jsonl import CocoJsonl
from dataset_tools.geometry import Box


def expression_quality(
    detections: Mapping[str, Sequence[Detection]], data: CocoJsonl, calibration: Calibration
) -> dict[str, float]:
    """Shares of the expressions of ``data`` that the relation program answers rightly, given ``detections``.

    Args:
        detections: by file name, best first; true boxes with score 1 measure the relation program alone.
        data: expressions whose images are not in ``detections`` are left out.
        calibration: which scores count.

    Returns:
        ``P@0.5`` over the expressions with one target, all kinds and by kind (the best answer's box against the
        target's); ``all IoU``, the mean IoU of the united boxes; ``present answered`` and ``absent abstained``.
    """
    images = {image.file_name: image for image in data.images if image.file_name in detections}
    results = defaultdict(list)
    for expression in data.expressions:
        if expression.image not in images:
            continue
        image = images[expression.image]
        query = expression_parser.parse(expression.expression, frozenset(calibration.even))
        if query.category not in calibration.even:
            result = GroundingResult(())
        else:
            result = answer(query, detections[image.file_name], calibration, (image.height, image.width))
        if not expression.ann_ids:
            results["absent abstained"].append(float(not result.groundings))
            continue
        results["present answered"].append(float(bool(result.groundings)))
        boxes = [grounding.box for grounding in result.groundings]
        targets = [a.box for a in image.annotations if a.id in expression.ann_ids]
        if expression.kind == "all":
            results["all IoU"].append(_united_iou(boxes, targets, image.height, image.width))
        else:
            hit = float(bool(boxes) and boxes[0].iou(targets[0]) >= MATCH_IOU)
            results["P@0.5"].append(hit)
            results[f"P@0.5 {expression.kind}"].append(hit)
    return {name: float(np.mean(values)) for name, values in results.items()}


def true_detections(data: CocoJsonl) -> dict[str, list[Detection]]:
    """The annotated boxes of every image as detections of score 1."""
    return {
        image.file_name: [
            Detection(a.box, name, 1.0) for a in image.annotations if (name := canonical(a.category)) is not None
        ]
        for image in data.images
    }


def _united_iou(a: Iterable[Box], b: Iterable[Box], height: int, width: int) -> float:
    """IoU in pixels of the union of boxes ``a`` with the union of boxes ``b``."""
    painted = []
    for boxes in (a, b):
        mask = np.zeros((height, width), bool)
        for box in boxes:
            mask[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = True
        painted.append(mask)
    union = (painted[0] | painted[1]).sum()
    return float((painted[0] & painted[1]).sum() / union) if union else 0.0
