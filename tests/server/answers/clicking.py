"""What an editor sends of clicks, boxes and regions, and what comes back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from backend.server.protocol import PredictRequest, validate
from backend.server.service import LabelingService
from dataset_tools import brush_rle

WIDTH, HEIGHT = 80, 60


def click(
    x: float, y: float, positive: bool | None = True, label: str = "building", identity: str = ""
) -> dict[str, Any]:
    item: dict[str, Any] = {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": {"x": 100 * x / WIDTH, "y": 100 * y / HEIGHT, "width": 0.3, "keypointlabels": [label]},
        "id": identity or f"{x}-{y}-{positive}",
        "from_name": "point",
        "to_name": "image",
        "type": "keypointlabels",
    }
    return item if positive is None else {**item, "is_positive": positive}


def drawn_box(x: float, y: float, w: float, h: float, label: str = "building") -> dict[str, Any]:
    value = {"x": 100 * x / WIDTH, "y": 100 * y / HEIGHT, "width": 100 * w / WIDTH, "height": 100 * h / HEIGHT}
    return {
        "value": {**value, "rotation": 0, "rectanglelabels": [label]},
        "id": f"box {x} {y}",
        "from_name": "box",
        "to_name": "image",
        "type": "rectanglelabels",
    }


def text(*expressions: str) -> dict[str, Any]:
    return {
        "value": {"text": list(expressions)},
        "id": "t",
        "from_name": "prompt",
        "to_name": "image",
        "type": "textarea",
    }


def region(identity: str, mask: Any, label: str = "building") -> dict[str, Any]:
    value = {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": [label]}
    return {"id": identity, "type": "brushlabels", "from_name": "mask", "to_name": "image", "value": value}


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Any:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def ask(service: LabelingService, body: dict[str, Any]) -> Any:
    (answer,) = service.predict(validate(PredictRequest, body))
    return answer


def masks_of(answer: Any) -> list[Any]:
    return [brush_rle.decode(found["value"]["rle"], HEIGHT, WIDTH) for found in answer["result"]]


def without_ids(answer: Any) -> Any:
    answer = copy.deepcopy(answer)
    for found in answer["result"]:
        del found["id"]
    return answer
