"""Figures worked out by hand on a small export; the page is one file and holds them; the command reads both sources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from backend.commands.report import report
from backend.database import Database
from backend.learning.annotations.store import AnnotationStore
from backend.learning.report.figures import Costs, labelling_of
from backend.learning.report.page import ModelHistory, page, use_dates
from backend.learning.versions.manifest import Manifest
from backend.learning.versions.registry import Promotion, VersionRow
from dataset_tools import brush_rle
from dataset_tools.errors import ConfigError, DatasetError
from dataset_tools.label_studio.exports import samples_of
from dataset_tools.label_studio.import_rules import ImportRules
from dataset_tools.statistics import collect
from tests.dataset_tools.label_studio.test_client import LEGACY
from tests.learning.versions.test_registry import manifest
from tests.server.conftest import Site, make_site

HEIGHT, WIDTH = 20, 40


@pytest.fixture
def site() -> Iterator[Site]:
    yield from make_site()


def region(columns: int, origin: str = "manual", clicks: int | None = None, label: str = "ship") -> dict[str, Any]:
    """A brush region of the first ``columns`` columns."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[:, :columns] = True
    found: dict[str, Any] = {
        "id": f"r{columns}",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "origin": origin,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": [label]},
    }
    if clicks is not None:
        found["meta"] = {"text": [f"pslg model=compact-00000001 clicks={clicks} score=0.9"]}
    return found


def annotation(
    number: int, day: int, result: list[dict[str, Any]], lead_time: float | None, skipped: bool = False
) -> dict[str, Any]:
    moment = f"2026-03-{day:02d}T12:00:00Z"
    return {
        "id": number,
        "task": number,
        "created_at": moment,
        "updated_at": moment,
        "was_cancelled": skipped,
        "lead_time": lead_time,
        "result": result,
    }


def prediction(version: str, columns: int, score: float) -> dict[str, Any]:
    return {
        "id": 1,
        "model_version": version,
        "score": score,
        "created_at": "2026-03-01T00:00:00Z",
        "result": [region(columns, "prediction")] if columns else [],
    }


def export() -> list[dict[str, Any]]:
    """Five labels of four fates on three days, a skip, an empty annotation, a task without one, two versions."""
    data = {"image": "/data/upload/1/a.png", "expression": "the ship"}
    annotations = [
        annotation(1, 1, [region(10, "prediction", 0), region(20, "prediction-changed", 0)], 40.0),
        annotation(2, 1, [region(10, "manual", 3)], 30.0),
        annotation(3, 2, [region(10, "manual", None, "bridge")], 5000.0),
        annotation(4, 2, [], 4.0, skipped=True),
        annotation(5, 9, [], 5.0),
        annotation(6, 9, [region(20, "prediction", 0)], None),
    ]
    tasks: list[dict[str, Any]] = [
        {"id": one["id"], "data": data, "annotations": [one], "predictions": []} for one in annotations
    ]
    tasks[1]["predictions"] = [prediction("compact-00000001", 5, 0.4), prediction("compact-00000002", 10, 0.9)]
    tasks[5]["predictions"] = [prediction("compact-00000001", 20, 0.8), prediction("compact-00000002", 0, 0.0)]
    return [*tasks, {"id": 7, "data": data, "annotations": [], "predictions": []}]


def test_figures_by_hand() -> None:
    found = labelling_of(export())
    figures = found.figures(Costs(manual_seconds=100.0, longest=600.0, hourly=36.0))
    assert (figures["tasks"], figures["annotations"], figures["empty"], figures["skipped"]) == (7, 5, 1, 1)
    assert figures["fates"] == {"unchanged": 2, "clicked": 1, "changed": 1, "manual": 1}
    assert figures["clicks_per_label"] == pytest.approx(3 / 4), "a label drawn by hand has no clicks to count"
    assert figures["labels_by_day"] == {"2026-03-01": 3, "2026-03-02": 1, "2026-03-09": 1}
    assert figures["labels_by_category"] == {"ship": 4, "bridge": 1}
    # 20 + 20 + 30 seconds of labels made with the model; one of them has no time
    assert figures["saving"] == {
        "labels": 3, "seconds": 70.0, "manual_seconds": 300.0, "price": pytest.approx(2.3), "baseline": 100.0,
        "measured": 0, "saved_seconds": 230.0, "share": pytest.approx(230 / 300),
    }  # fmt: skip
    assert figures["quality"]["compact-00000001"] == {
        "tasks": 2, "mIoU": pytest.approx(0.75), "good": 0.5, "score": pytest.approx(0.6),
    }  # fmt: skip
    assert figures["quality"]["compact-00000002"]["mIoU"] == pytest.approx(0.5)
    assert list(found.by_day()) == [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 9)]


def test_ten_labels_drawn_by_hand_are_the_baseline() -> None:
    tasks = export()
    for number in range(10, 19):
        drawn = annotation(number, 3, [region(10, "manual", None), region(30, "manual", None)], 40.0)
        tasks.append({"id": number, "data": {}, "annotations": [drawn], "predictions": []})
    saving = labelling_of(tasks).saving(Costs(manual_seconds=100.0, longest=600.0))
    assert (saving.labels, saving.measured) == (3, 19)
    assert saving.baseline == pytest.approx((18 * 20 + 600) / 19)
    assert saving.manual_seconds == pytest.approx(3 * saving.baseline)


def test_the_ticks_of_one_day_are_days() -> None:
    axes = Figure().add_subplot()
    axes.plot([date(2026, 3, 1)], [20.0], marker="o")  # type: ignore[arg-type]
    use_dates(axes)
    assert len(axes.get_xticks()) <= 3
    assert axes.get_xlim()[1] - axes.get_xlim()[0] == pytest.approx(3)


def worded(*lines: str, origin: str = "prediction") -> dict[str, Any]:
    return {**region(10, origin), "meta": {"text": list(lines)}}


@pytest.mark.parametrize(
    ("given", "fate"),
    [
        (worded("pslg model=m clicks=0 score=0.9", "expression: the ship"), "unchanged"),
        (worded("pslg model=m clicks=0 score=0.9", "expression: the grey ship"), "clicked"),
        (worded("pslg model=m clicks=0 score=0.9", "expression: the ship", origin="manual"), "clicked"),
        (worded("pslg model=m clicks=1 score=0.9", origin="manual"), "clicked"),
        (worded("pslg model=m clicks=2 score=0.9", "expression: the ship"), "clicked"),
        (worded("pslg model=m clicks=0 score=0.9", "expression: the ship", origin="prediction-changed"), "changed"),
        (worded(origin="manual"), "manual"),
        (worded(), "unchanged"),
    ],
    ids=["pre-label", "typed", "typed again", "box", "clicked", "edited", "drawn", "another model"],
)
def test_accepted_unchanged_is_one_thing_in_report_and_dataset(given: dict[str, Any], fate: str) -> None:
    task = {**export()[0], "annotations": [annotation(1, 1, [given], 10.0)]}
    assert [label.fate for label in labelling_of([task]).labels] == [fate]
    (sample,) = samples_of([task], ImportRules(), [])
    assert [record.provenance.fate for record in sample.records] == [fate]
    assert collect([sample]).summary()["accepted_unchanged"] in ((1.0,) if fate == "unchanged" else (0.0, None))


def test_of_two_annotations_the_latest_is_the_truth_for_predictions() -> None:
    task = export()[1]
    task["annotations"].append(annotation(8, 5, [region(5, "manual")], 1.0))
    assert labelling_of([task]).quality["compact-00000001"].ious == [1.0]


def test_what_is_damaged_is_named_and_left_out() -> None:
    task = export()[1]
    task["predictions"][0]["result"][0]["value"]["rle"] = [1, 2, 3]
    task["annotations"].append({"id": 9, "result": None})
    found = labelling_of([task])
    assert len(found.labels) == 1
    assert list(found.quality) == ["compact-00000002"]
    assert "annotation 9 has no result" in found.damaged[0]
    assert "prediction of compact-00000001" in found.damaged[1]


def run(*words: str) -> Any:
    return CliRunner().invoke(report, list(words))


def test_the_page_of_an_export_is_one_file(tmp_path: Path) -> None:
    source, out = tmp_path / "my & export.json", tmp_path / "page.html"
    source.write_text(json.dumps(export()))
    result = run("--export", str(source), "--out", str(out), "--json", "--hourly-cost", "20", "--manual-seconds", "50")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["saving"]["manual_seconds"] == 150.0
    html = out.read_text()
    assert "my &amp; export" in html
    assert html.count("data:image/png;base64,") == 5
    assert not re.search(r'(?:src|href)="(?!data:)', html), "nothing is loaded from elsewhere"
    assert "3 × 50 s − 70 s = 80 s" in html
    for text in ("compact-00000002", "20.0%", "Could not be read"):
        assert (text in html) == (text != "Could not be read"), text
    assert "Promotions" not in html, "an export knows nothing of versions"


def receive_webhooks(state: Path) -> None:
    """The export's annotations as the server gets them, the last first."""
    store = AnnotationStore(Database.of_state(state))
    project = {"id": 3, "title": "Ships <3", "label_config": "<View/>", "created_at": "2026-03-01T00:00:00Z"}
    for task in reversed(export()):
        for one in task["annotations"]:
            body = {"action": "ANNOTATION_CREATED", "annotation": one, "project": project}
            store.events.append({**body, "task": {"id": task["id"], "data": task["data"]}})
    store.database.close()


def test_annotations_of_the_server_s_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Webhooks in, page out; without Label Studio there are no predictions, and the page says so."""
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST", "LABEL_STUDIO_API_KEY", "LABEL_STUDIO_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    receive_webhooks(tmp_path)
    result = run("3", "--out", str(tmp_path / "page.html"), "--state-dir", str(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    expected = labelling_of(export()).figures(Costs())
    figures = json.loads(result.stdout)
    assert figures["quality"] == {}
    assert {**figures, "quality": 0, "tasks": 0} == {**expected, "quality": 0, "tasks": 0}
    html = (tmp_path / "page.html").read_text()
    assert "Ships &lt;3" in html
    assert "Nothing was trained for this project yet" in html
    assert "no predictions are known" in html.lower()


def test_predictions_come_from_label_studio(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it has tasks that the store does not know, and the other way round."""
    receive_webhooks(tmp_path)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", LEGACY)
    tasks = [task for task in export() if task["id"] not in (1, 3)]
    page = {"tasks": [{"id": 0, "data": {}, "predictions": [prediction("other", 1, 1.0)]}, *tasks], "total": 6}
    site.put("/api/tasks/?project=3&page=1&page_size=100&fields=all", json.dumps(page).encode())
    words = ["--state-dir", str(tmp_path), "--label-studio-url", site.url, "--json"]
    result = run("3", "--out", str(tmp_path / "page.html"), *words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["quality"] == labelling_of(export()).figures(Costs())["quality"]


def test_promotions_and_rollbacks_are_on_the_page() -> None:
    manifest = Manifest(
        version="tiny-22222222",
        config="tiny",
        base="tiny-00000000",
        parent="tiny-00000000",
        project=2,
        job=1,
        options={},
        training_keys=["a" * 64, "b" * 64],
        replay="drawn scenes",
        gate={"held_out_old": 0.4, "held_out_new": 0.5, "replay_old": 0.7, "replay_new": None},
        accepted=True,
        reason="better on <both>",
    )
    rows = [VersionRow(manifest, created_at=1.77e9, active=False, served=True)]
    history = [
        Promotion(None, "tiny-22222222", promoted_at=1.78e9, reason="rolled back"),
        Promotion("tiny-22222222", None, promoted_at=1.77e9, reason="job 1"),
    ]
    html = page("Ships", "project 2", labelling_of(export()), Costs(), ModelHistory(rows, history))
    for text in (
        "0.400 to 0.500",
        "0.700 to ?",
        "better on &lt;both&gt;",
        "rolled back",
        "the base version",
        "earlier",
    ):
        assert text in html


def test_what_cannot_be_reported_says_why(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "page.html"), "--state-dir", str(tmp_path)]
    assert "give either PROJECT or --export" in run(*out).output
    nothing = run("4", *out).exception
    assert isinstance(nothing, ConfigError)
    assert "run pslg sync 4" in str(nothing)
    (tmp_path / "no.json").write_text('{"id": 1}')
    broken = run("--export", str(tmp_path / "no.json"), *out).exception
    assert isinstance(broken, ConfigError | DatasetError)
    assert not (tmp_path / "page.html").exists()


def test_the_page_shows_what_labels_brought() -> None:
    rows = [
        VersionRow(replace(manifest(f"tiny-{n}"), training_keys=["a" * 64] * (10 * n)), 0.0, active=n == 2, served=True)
        for n in (2, 1)
    ]
    html = page("a", "b", labelling_of(export()), Costs(), ModelHistory(rows, []))
    assert "What the labels brought" in html
    assert html.count("data:image/png;base64,") == 6
    part = html[html.index("What the labels brought") : html.index("Promotions and rollbacks")]
    assert part.index("tiny-1") < part.index("tiny-2"), "from few labels to many"
