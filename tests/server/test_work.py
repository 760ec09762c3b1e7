"""Where the time of requests goes is in the log and in the metrics, with project, task, kind and reason."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.log_lines import JsonFormatter
from backend.work import STAGES, spent, work
from tests.server.answers.clicking import click
from tests.server.conftest import Site, batch, interactive, png, task


class Kept(logging.Handler):
    """What the server's own handler would write, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.rows: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.rows.append(json.loads(self.format(record)))


@pytest.fixture
def said() -> Any:
    handler, root = Kept(), logging.getLogger("backend")
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.rows
    root.removeHandler(handler)
    root.setLevel(before)


def test_a_piece_of_work_has_its_own_seconds() -> None:
    spent.get()["fetch"] += 1.0
    with work() as stages:
        spent.get()["fetch"] += 0.5
        with work() as within:
            spent.get()["embed"] += 2.0
    spent.get()["fetch"] += 1.0
    assert (dict(stages), dict(within)) == ({"fetch": 0.5}, {"embed": 2.0})


def test_an_expression_says_where_its_time_went(client: FlaskClient, site: Site, said: list[dict[str, Any]]) -> None:
    url = site.put("/a.png", png())
    client.post("/predict", json=batch(task(11, url, "the ship"), task(12, url, "the foobar"), task(13, "/gone.png")))
    rows = {row["task"]: row for row in said if "task" in row and row["logger"].endswith("prelabeling")}
    answered = [row for row in said if row.get("task") == 11 and "stages" in row]
    assert [row["reason"] for row in answered] == [""]
    assert {"project": 2, "kind": "pre-label"}.items() <= answered[0].items()
    assert {"fetch", "pixels", "queue", "ground", "embed", "segment"} <= answered[0]["stages"].keys() <= set(STAGES)
    assert answered[0]["seconds"] == pytest.approx(sum(answered[0]["stages"].values()))
    assert any(row.get("task") == 12 and row.get("reason") == "unknown-category" for row in said)
    assert rows[13]["reason"] == "ImageError"
    assert rows[13]["project"] == 2
    (whole,) = [row for row in said if row.get("tasks") == 3]
    assert {"project": 2, "kind": "pre-label"}.items() <= whole.items()
    assert whole["seconds"] > 0


def test_a_click_says_where_its_time_went(client: FlaskClient, site: Site, said: list[dict[str, Any]]) -> None:
    url = site.put("/a.png", png())
    for _ in range(2):
        client.post("/predict", json=interactive(task(14, url), [click(50, 50)]))
    cold, warm = [row for row in said if row.get("task") == 14 and "stages" in row]
    assert {"project": 2, "kind": "click", "reason": ""}.items() <= cold.items()
    assert {"queue", "fetch", "embed", "segment", "write"} <= cold["stages"].keys() <= set(STAGES)
    assert "embed" not in warm["stages"]


def test_the_metrics_have_the_stages(client: FlaskClient, site: Site) -> None:
    client.post("/predict", json=batch(task(1, site.put("/a.png", png()), "the ship")))
    text = client.get("/metrics").get_data(as_text=True)
    counted = dict(re.findall(r'pslg_stage_seconds_count\{stage="([a-z]+)"\} ([\d.]+)', text))
    assert {"fetch", "pixels", "queue", "ground", "embed", "segment", "write"} <= counted.keys() <= set(STAGES)
    assert set(counted.values()) == {"1.0"}
