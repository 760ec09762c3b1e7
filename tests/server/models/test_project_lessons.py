"""More like this in a running server: one accepted object, and other tasks get candidates; no training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backend.batch.predictor import TaskPredictor
from backend.pipeline.grounding.exemplars import LIKE
from backend.server.protocol import PredictRequest, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from tests.end_to_end.projects import png
from tests.server.answers.test_prelabeling import wait_for
from tests.server.conftest import Site
from tests.server.loop import PROJECT, scenes, submission

WORD = "Solar_Panel"
CONFIG = f"""<View><Image name="image" value="$image"/><Header value="$expression"/>
<BrushLabels name="mask" toName="image" smart="false">
<Label value="{WORD}"/><Label value="Ship"/></BrushLabels></View>"""


@pytest.fixture
def service(settings: Settings) -> Iterator[LabelingService]:
    service = LabelingService(settings.model_copy(update={"config": "compact"}))
    service.start()
    assert service.model.wait(60)
    service.training.start()
    yield service
    service.close()


def test_a_new_word_is_found_in_other_tasks_once_objects_of_it_are_accepted(
    service: LabelingService, site: Site
) -> None:
    first, second = scenes(2)
    body = submission(1, first, site, {**PROJECT, "label_config": CONFIG})
    body["task"]["data"]["expression"] = "all the solar panels"
    for region in body["annotation"]["result"]:
        region["value"]["brushlabels"] = [WORD]
    url = site.put("/other.png", png(second.image))
    row: dict[str, Any] = {"id": 9, "data": {"image": url, "expression": "all the solar panels"}}
    asked = {
        "tasks": [row],
        "project": f"{PROJECT['id']}.1",
        "label_config": CONFIG,
    }

    def answer() -> dict[str, object]:
        (slot,) = service.predict(validate(PredictRequest, asked))
        assert isinstance(slot, dict)
        return dict(slot)

    base = service.models.version(PROJECT["id"])
    assert answer()["result"] == []
    service.record_event(body)
    wait_for(lambda: LIKE in service.models.version(PROJECT["id"]))

    found = answer()
    regions = found["result"]
    assert isinstance(regions, list)
    assert regions
    assert {region["value"]["brushlabels"][0] for region in regions} == {WORD}
    assert all(found["model_version"] in region["meta"]["text"][0] for region in regions), "it says what it is"
    assert str(found["model_version"]).startswith(f"{base}{LIKE}")
    assert service.models.version(77) == base, "another project has learnt nothing"
    assert service.models.serves(PROJECT["id"], base)

    predictor = TaskPredictor(service.settings, CONFIG)
    try:
        told, _ = predictor.predict({**row, "project": PROJECT["id"]})
        untold, _ = predictor.predict(row)
    finally:
        predictor.close()
    assert (told["model_version"], len(told["result"])) == (found["model_version"], len(regions))
    assert (untold["model_version"], untold["result"]) == (base, []), "a task of no project knows nothing of its labels"

    service.record_event({"action": "ANNOTATIONS_DELETED", "project": PROJECT, "annotations": [{"id": 1}]})
    wait_for(lambda: service.models.version(PROJECT["id"]) == base)
    assert answer()["result"] == []
