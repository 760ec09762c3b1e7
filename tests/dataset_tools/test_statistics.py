"""Statistics count what is there; proposals and tasks carry it on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_tools import statistics, synthetic
from dataset_tools.enlarging import enlarge
from dataset_tools.formats import read
from dataset_tools.label_studio.exports import read_tasks, samples_of
from dataset_tools.label_studio.import_rules import ImportRules
from dataset_tools.label_studio.tasks import write_tasks
from dataset_tools.records import Provenance, Record, Sample, SourceImage, target_of


def square(x: int, side: int = 20) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros((100, 100), bool)
    mask[10 : 10 + side, x : x + side] = True
    return mask


def sample() -> Sample:
    def record(words: str, x: int, **provenance: object) -> Record:
        origin = Provenance(source="label-studio", task=1, **provenance)  # type: ignore[arg-type]
        return Record(words, "ship", (target_of(square(x)),), "train", "extreme", origin)

    return Sample(
        SourceImage("a.png", 100, 100),
        (
            record("the ship on the left", 0, annotation=1, annotator=7, lead_time=10.0, origin="prediction", clicks=0),
            record("the ship on the left", 5, annotation=2, annotator=8, lead_time=30.0, origin="manual", clicks=3),
            record("the ship on the right", 70, annotation=1, annotator=7, lead_time=20.0, origin="prediction-changed"),
        ),
    )


def test_counts_by_hand() -> None:
    summary = statistics.collect([sample()]).summary()
    assert (summary["images"], summary["expressions"], summary["objects"]) == (1, 3, 3)
    assert summary["by_category"] == {"ship": {"train": 3}}
    assert summary["mask_share"]["p50"] == 0.04
    assert summary["expression_words"] == {"mean": 5.0, "max": 5}
    assert summary["top_words"] == {"ship": 3, "left": 2, "right": 1}
    assert summary["masks"] == {"prediction": 1, "prediction-changed": 1, "manual": 1}
    assert summary["accepted_unchanged"] == pytest.approx(1 / 3, abs=1e-4)
    assert summary["fates"] == {"unchanged": 1, "clicked": 1, "changed": 1, "manual": 0}
    assert summary["clicks"] == {"0": 1, "3": 1}
    assert summary["lead_time_seconds"] == {"7": {"n": 2, "median": 15.0}, "8": {"n": 1, "median": 30.0}}
    assert summary["annotator_agreement_iou"] == pytest.approx(15 / 25, abs=1e-4)


def test_positions_are_where_the_objects_are() -> None:
    heat = statistics.collect([sample()]).heat
    rows, columns = np.nonzero(heat)
    assert rows.max() <= 15
    assert columns.max() >= 40


def test_page_opens_offline_and_escapes(tmp_path: Path) -> None:
    files = statistics.write(tmp_path, "<b>set</b>", statistics.collect([sample()]))
    page = (tmp_path / "index.html").read_text()
    assert "<b>set" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="data:image/png' in page
    assert {path.name for path in files} >= {"index.html", "statistics.json", "categories.png", "lead_times.png"}
    assert json.loads((tmp_path / "statistics.json").read_text())["expressions"] == 3


def test_a_formula_as_a_category_is_a_name(tmp_path: Path) -> None:
    found = sample()
    odd = tuple(replace(record, category="$x_{$", expression="$\\frac{$ $") for record in found.records)
    named = replace(odd[0], provenance=replace(odd[0].provenance, annotator="$y_{$"))
    statistics.write(tmp_path, "odd", statistics.collect([replace(found, records=(*odd, named))]))
    assert "$x_{$" in (tmp_path / "statistics.json").read_text()


def test_nothing_warns_of_empty_sets_and_scripts_that_the_font_lacks(tmp_path: Path) -> None:
    statistics.write(tmp_path / "empty", "empty", statistics.collect([]))
    found = sample()
    foreign = replace(found, records=(replace(found.records[0], expression="左边的船"),))
    statistics.write(tmp_path / "foreign", "foreign", statistics.collect([foreign]))
    assert "左边的船" in (tmp_path / "foreign/index.html").read_text()


def test_proposals_are_marked_and_name_existing_objects(tmp_path: Path) -> None:
    synthetic.write(tmp_path, [synthetic.draw_scene(4, 400, 300)])
    (before,) = read(tmp_path)
    (after,) = enlarge([before], per_object=2)
    made = after.records[len(before.records) :]
    assert after.records[: len(before.records)] == before.records
    assert made
    objects = {target for record in before.records for target in record.targets}
    for record in made:
        assert record.provenance == Provenance(source="proposal", generated=True)
        assert set(record.targets) <= objects
    assert not {r.expression.lower() for r in made} & {r.expression.lower() for r in before.records}


def test_tasks_that_annotators_accept_come_back_as_the_same_records(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "in", [synthetic.draw_scene(4, 400, 300)], split=(1, 0, 0))
    (before,) = read(tmp_path / "in")
    count = write_tasks(tmp_path / "tasks.json", [before], "/data/local-files/?d=images/{name}")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert count == len(tasks)
    for number, task in enumerate(tasks):  # submit every prediction as it is
        result = task.pop("predictions")[0]["result"]
        task.update(id=number, annotations=[{"id": number, "result": result}])
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    after = list(samples_of(read_tasks(tmp_path / "export.json"), ImportRules(), []))
    kept = [
        (record.expression, record.category, before.merged(record), record.split, record.kind)
        for record in before.records
        if record.expression and record.targets
    ]
    found = [(r.expression, r.category, s.merged(r), r.split, r.kind) for s in after for r in s.records]
    assert found == kept
    assert {s.image.file_name for s in after} == {"00001.png"}
