"""Tasks as candidates: what is known is not computed again, versions are compared, failures do not stop the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.batch.ranking import RankedTask, TaskRanker
from backend.learning.ranking.image_features import ImageFeatures, feature_segmenter
from backend.learning.ranking.strategies import STRATEGIES
from backend.pipeline.config import load_config
from backend.server.editor.labeling_config import parse_labeling_config
from backend.server.editor.prompts import read_task
from backend.server.protocol import Task
from backend.server.service import LabelingService
from dataset_tools import brush_rle
from tests.server.conftest import LABEL_CONFIG, Site, png, task
from tests.server.tiny import VERSION


def prediction(identity: int, version: str, columns: int, score: float = 0.4) -> dict[str, Any]:
    """A stored prediction: the first ``columns`` of 80 columns as a ship, nothing for 0."""
    mask = np.zeros((60, 80), np.bool_)
    mask[:, :columns] = True
    region = {
        "id": "a",
        "type": "brushlabels",
        "original_width": 80,
        "original_height": 60,
        "value": {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": ["ship"]},
    }
    return {"id": identity, "model_version": version, "score": score, "result": [region] if columns else []}


@pytest.fixture
def ranker(service: LabelingService) -> TaskRanker:
    return make_ranker(service, "uncertainty")


def make_ranker(service: LabelingService, strategy: str) -> TaskRanker:
    features = ImageFeatures(service.store.database, feature_segmenter())
    return TaskRanker(service, service.model.pipeline(), parse_labeling_config(LABEL_CONFIG), features, strategy)


def ranked(ranker: TaskRanker, *rows: dict[str, Any]) -> dict[int, RankedTask]:
    done = sum(ranker.add([rows[:1], rows[1:]]))
    assert done == len(rows)
    found = ranker.ranked()
    assert [item.rank for item in found] == list(range(1, len(found) + 1))
    return {item.id: item for item in found}


def test_scores_are_those_of_predictions(service: LabelingService, ranker: TaskRanker, site: Site) -> None:
    """Also after a calibration: answers that were kept get the new scores."""
    pipeline, config = service.model.pipeline(), parse_labeling_config(LABEL_CONFIG)
    url = site.put("/a.png", png())
    rows = [task(1, url, "the ship"), task(2, url, "the absent ship"), task(3, url, ["the ship", "x"])]
    before = ranked(ranker, *rows)
    pipeline.config = pipeline.config.model_copy(update={"score": load_config("compact").score})
    after = ranked(make_ranker(service, "uncertainty"), *rows)
    assert after[1].score != before[1].score
    for row in rows:
        query = read_task(Task.model_validate(row), config)
        assert after[row["id"]].score == service.prelabeler.answer(pipeline, query, config)["score"]
    assert after[2].score == 0.0
    assert after[3].score == pytest.approx((after[1].score or 0) / 2), "one of two expressions has no answer"
    assert [after[n].category for n in (1, 2, 3)] == ["ship", "ship", "ship"]


def test_annotated_and_skipped_tasks_are_no_candidates(ranker: TaskRanker, site: Site) -> None:
    url = site.put("/a.png", png())
    labelled = task(1, url, total_annotations=1, annotations=[{"id": 1, "result": []}])
    skipped = task(2, url, total_annotations=0, cancelled_annotations=1)
    assert list(ranked(ranker, labelled, skipped, task(3, url))) == [3]
    assert ranker.skipped == 1


def test_a_task_that_fails_is_named_and_the_others_are_ranked(ranker: TaskRanker, site: Site) -> None:
    url = site.put("/a.png", png())
    rows = [task(1, url), task(2, site.url + "/none.png"), {"id": 3, "data": {"text": "x"}}, task(4, url)]
    assert sorted(ranked(ranker, *rows)) == [1, 4]
    assert [line.split(":")[0] for line in ranker.failures] == ["task 2", "task 3"]
    assert "404" in ranker.failures[0]
    assert "no image under the data key 'image'" in ranker.failures[1]


def test_a_stored_prediction_of_this_version_is_not_computed_again(
    service: LabelingService, ranker: TaskRanker, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.prelabeler.expressions, "answers", lambda *_: pytest.fail("computed"))
    row = task(1, site.put("/a.png", png()), predictions=[prediction(1, VERSION, 40, 0.37)])
    assert ranked(ranker, row)[1].score == 0.37


def test_what_the_server_kept_is_not_computed_again(service: LabelingService, site: Site) -> None:
    rows = [task(n, site.put(f"/{n}.png", png(seed=n))) for n in (1, 2)]
    first = ranked(make_ranker(service, "mix"), *rows)
    service.prelabeler.close()  # takes no more work
    assert ranked(make_ranker(service, "mix"), *rows) == first
    assert len(site.paths()) == 2, "each image was fetched once"


def test_versions_that_disagree(ranker: TaskRanker, site: Site) -> None:
    """The newest prediction of another version counts; half of the mask is an IoU of a half."""
    url = site.put("/a.png", png())
    now, old, older = prediction(9, VERSION, 40), prediction(2, "tiny-00000000", 20), prediction(1, "tiny-11111111", 40)
    found = ranked(
        ranker,
        task(1, url, predictions=[older, old, now]),
        task(2, url, predictions=[now, older]),
        task(3, url, predictions=[now, prediction(3, "tiny-00000000", 0)]),
        task(4, url, predictions=[now]),
    )
    assert [found[n].disagreement for n in (1, 2, 3, 4)] == pytest.approx([0.5, 0, 1, 0])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_ranks_every_task(service: LabelingService, site: Site, strategy: str) -> None:
    urls = [site.put(f"/{n}.png", png(seed=n)) for n in range(3)]
    rows = [task(n, urls[n % 3], ("the ship", "the building")[n % 2]) for n in range(6)]
    assert sorted(ranked(make_ranker(service, strategy), *rows)) == list(range(6))


def test_an_empty_project(ranker: TaskRanker) -> None:
    assert list(ranker.add([[]])) == []
    assert ranker.ranked() == []
