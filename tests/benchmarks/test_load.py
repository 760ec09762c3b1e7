"""The load benchmark's requests are what the server takes, and its table and comparison tell what they should."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from backend.server.editor.labeling_config import parse_labeling_config
from backend.server.editor.prompts import read_prompts, read_task
from backend.server.protocol import PredictRequest, validate
from benchmarks.image_server import served
from benchmarks.load import KINDS, Figures, asked, compared, faults, shown, table
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


def always(slots: list[Any]) -> Callable[[str], bytes]:
    """A server without company that gives everybody the same slots."""
    answer = json.dumps({"results": slots}).encode()
    return lambda _path: answer


def test_a_wrong_answer_and_a_run_that_shows_nothing_are_faults() -> None:
    figures, scene = Figures(), draw_scene(3, 200, 160)
    for kind in KINDS:
        figures.add(kind, 0.1, asked("http://a.b", 3, scene, kind), Answer(200, [slot(7, "a")]))  # type: ignore[arg-type]
    memory = {"rss_gb": 1.0, "anonymous_gb": 0.5, "own_gb": 0.7}
    row = {
        "annotators": 4, "think_s": 1.0, "seconds": 10.0, "images": 2, "side": 64, "warm": True, "workers": 1,
        "loadavg": 0.1, "rest": memory, "most": memory, "memory": [(0, memory), (5, memory)],
        "requests": table(figures), "failed": 0, "first_failed": [],
    }  # fmt: skip
    for value, wrong in ((7, 0), (8, len(KINDS))):
        with served(always([slot(value, "b")])) as alone:
            found = {**row, **compared(figures, alone, 100)}
        assert found["wrong"] == wrong
        assert bool(faults(found)) == bool(wrong)
        assert ("FAULT: 4 of 4 answers are wrong" in shown(found)) == bool(wrong)
    silent = {**row, "requests": table(Figures()), "compared": 0, "wrong": 0, "first_wrong": []}
    assert "never answered" in faults(silent)[0]
