"""More like this in the editor: which region is meant, what is suggested, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from backend.pipeline import PslgSam
from backend.pipeline.types import Box, Grounding, Image
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools.label_studio.annotations import words_of
from dataset_tools.label_studio.notes import answered
from dataset_tools.label_studio.regions import read_region
from tests.server.answers.clicking import ask, click, rectangle, region, text
from tests.server.conftest import Site, interactive, png, task
from tests.server.tiny import VERSION, WordGrounder, tiny_pipeline

LEFT, MIDDLE, RIGHT = Box(2, 2, 18, 18), Box(30, 20, 50, 40), Box(60, 40, 78, 58)


class Alike(WordGrounder):
    """Finds three boxes by any example, one of them doubtful, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Box], list[Box], str]] = []

    def find_like(
        self,
        image: Image,
        positive: Sequence[Box],
        negative: Sequence[Box] = (),
        *,
        noun: str = "",
        key: str | None = None,
    ) -> tuple[Grounding, ...]:
        self.asked.append((list(positive), list(negative), noun))
        return (Grounding(LEFT, 0.9), Grounding(RIGHT, 0.8), Grounding(Box(60, 2, 78, 18), 0.3))


@pytest.fixture
def grounder() -> Alike:
    return Alike()


@pytest.fixture
def service(settings: Settings, grounder: Alike) -> Iterator[LabelingService]:
    def load() -> PslgSam:
        pipeline = tiny_pipeline()
        pipeline.grounder = grounder
        return pipeline

    service = LabelingService(settings, load)
    service.start()
    assert service.model.wait(20)
    yield service
    service.close()


def drafted(site: Site, *regions: dict[str, Any]) -> dict[str, Any]:
    draft = {"id": 3, "updated_at": "2026-11-27T09:00:00Z", "result": list(regions)}
    return task(1, site.put("/a.png", png(80, 60)), drafts=[draft] if regions else [])


OUTLINED = (region("one", rectangle(2, 2, 18, 18)), region("two", rectangle(30, 20, 50, 40), "ship"))


def test_what_looks_like_the_newest_region_is_suggested_under_its_label(
    service: LabelingService, site: Site, grounder: Alike
) -> None:
    answer = ask(service, interactive(drafted(site, OUTLINED[1], OUTLINED[0]), [text("the ship", "more like this")]))
    assert grounder.asked == [([LEFT], [MIDDLE], "building")]
    (found,) = answer["result"]  # the region itself and what is doubtful are left out
    assert found["value"]["brushlabels"] == ["building"]
    assert found["id"] not in ("one", "two")
    assert found["meta"]["text"][0].startswith(f"pslg model={VERSION}.like-")
    assert read_region(found, {}).expression is None


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        (text("find more of these buildings"), "building"),
        (text("More like this."), "ship"),
        ({**text("more like this"), "id": "one"}, "building"),
        (click(10, 10, label="More_like_this"), "building"),
        (click(40, 30, label="more like this"), "ship"),
    ],
)
def test_a_noun_the_region_s_own_text_or_a_click_says_what_this_is(
    service: LabelingService, site: Site, grounder: Alike, prompt: dict[str, Any], label: str
) -> None:
    answer = ask(service, interactive(drafted(site, *OUTLINED), [prompt]))
    assert [noun for _, _, noun in grounder.asked] == [label]
    assert {found["value"]["brushlabels"][0] for found in answer["result"]} == {label}


def test_without_a_region_to_look_like_nothing_is_suggested(
    service: LabelingService, site: Site, grounder: Alike
) -> None:
    for wanted in (text("more like this"), text("more like this zebra"), click(70, 5, label="more like this")):
        shown = OUTLINED if wanted["type"] != "textarea" or "zebra" in wanted["value"]["text"][0] else ()
        assert ask(service, interactive(drafted(site, *shown), [wanted]))["result"] == []
    assert grounder.asked == []


def test_an_expression_after_it_is_answered_as_ever(service: LabelingService, site: Site, grounder: Alike) -> None:
    answer = ask(service, interactive(drafted(site, *OUTLINED), [text("more like this", "the ship")]))
    (found,) = answered(answer["result"])
    assert grounder.asked == []
    assert read_region(found, {}).expression == "the ship"


def test_it_is_no_expression_of_what_was_accepted(service: LabelingService, site: Site) -> None:
    (found,) = ask(service, interactive(drafted(site, OUTLINED[0]), [text("more like this")]))["result"]
    results = [text("more like this"), found]
    assert words_of([read_region(found, {})], results, []) == [None]
