"""The load benchmark's requests are what the server takes, and its table and comparison tell what they should."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.server.editor.labeling_config import parse_labeling_config
from backend.server.editor.prompts import read_prompts, read_task
from backend.server.protocol import PredictRequest, validate
from benchmarks.load import KINDS, Figures, asked, table
from dataset_tools.synthetic import draw_scene


class Answer:
    """A response as far as it is looked at."""

    def __init__(self, status: int, slots: list[Any]) -> None:
        self.status_code = status
        self.text = json.dumps({"results": slots})

    def json(self) -> Any:
        return json.loads(self.text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_request_asks_for_something(kind: str) -> None:
    scene = draw_scene(3, 200, 160)
    request = validate(PredictRequest, asked("http://a.b", 3, scene, kind))
    config = parse_labeling_config(request.label_config)
    assert not config.problems(None)
    if request.context is None:
        assert read_task(request.tasks[0], config).expressions
        return
    objects = read_prompts(request.context.result, request.tasks[0], config, (160, 200)).objects
    assert len(objects) == (2 if kind == "two boxes" else 1)
    assert len(objects[0].clicks) == {"first click": 1, "second click": 2, "two boxes": 0}[kind]


def slot(value: int, identity: str) -> dict[str, Any]:
    region = {"id": identity, "from_name": "mask", "type": "brushlabels", "value": {"rle": [value]}}
    return {"result": [region], "score": 0.5, "model_version": "v"}


def test_refusals_failures_and_two_answers_are_told_apart() -> None:
    figures, scene = Figures(), draw_scene(3, 200, 160)
    body = asked("http://a.b", 3, scene, "first click")
    busy = {**slot(0, "n"), "result": [{"from_name": "pslg_note", "type": "textarea", "value": {"text": ["(busy)"]}}]}
    for seconds, answer in [
        (0.1, Answer(200, [slot(7, "fresh")])),
        (0.3, Answer(200, [slot(7, "another id, the same mask")])),
        (0.1, Answer(503, [])),
        (0.1, Answer(200, [busy])),
    ]:
        figures.add("first click", seconds, body, answer)  # type: ignore[arg-type]
    assert figures.failed == []
    assert table(figures)["first click"] == {"answers": 2, "refused": 2, "p50": 200, "p95": 290, "p99": 298}
    figures.add("first click", 0.1, body, Answer(200, [slot(8, "x")]))  # type: ignore[arg-type]
    figures.add("first click", 0.1, body, Answer(500, []))  # type: ignore[arg-type]
    figures.add("first click", 0.1, body, None)
    assert len(figures.failed) == 3
