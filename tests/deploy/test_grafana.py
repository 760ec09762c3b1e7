"""The dashboard: every figure it shows is one that the server gives, by the labels that it has."""

from __future__ import annotations

import json
import re
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from backend.server.metrics import Metrics
from tests.conftest import REPOSITORY

DASHBOARD: dict[str, Any] = json.loads((REPOSITORY / "deploy" / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def samples() -> dict[str, set[str]]:
    """Labels by the name of every sample that a server can give."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        if not isinstance(metric, Counter | Gauge | Histogram):
            continue
        name, labels = metric._name, set(metric._labelnames)
        if isinstance(metric, Counter):
            found[f"{name}_total"] = labels
        elif isinstance(metric, Gauge):
            found[name] = labels
        else:
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
    return found


def test_every_figure_exists() -> None:
    known = samples()
    shown = {name for text in EXPRESSIONS for name in re.findall(r"\bpslg_[a-z_]+", text)}
    variables = re.findall(r"\bpslg_[a-z_]+", json.dumps(DASHBOARD["templating"]))
    assert shown | set(variables) <= known.keys()


def test_every_label_is_one_of_its_figure() -> None:
    known = samples()
    for text in EXPRESSIONS:
        names = re.findall(r"\bpslg_[a-z_]+", text)
        labels = {label for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(", ")}
        labels |= {label for group in re.findall(r"\{([^}]*)\}", text) for label in re.findall(r"(\w+)=~?\"", group)}
        for name in names:
            assert labels - {"instance"} <= known[name], text


def test_every_legend_is_a_label_of_its_query() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), target


def test_all_that_the_server_counts_is_shown() -> None:
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in samples()}
    text = " ".join(EXPRESSIONS)
    assert [name for name in sorted(families) if name not in text] == []


def test_panels_do_not_lie_on_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
