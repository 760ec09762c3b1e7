"""Interactive answers: which region, which prompts, and what is outlined."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from backend.pipeline import PslgSam
from backend.pipeline.segmentation.mask_cleaning import shown_mask
from backend.pipeline.types import Box, NamedImage, Point, Prompts
from backend.server.protocol import PredictRequest, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools import brush_rle
from tests.conftest import REPOSITORY
from tests.server.answers.clicking import (
    HEIGHT,
    WIDTH,
    ask,
    click,
    drawn_box,
    masks_of,
    rectangle,
    region,
    text,
    without_ids,
)
from tests.server.conftest import LABEL_CONFIG, Site, interactive, png, task
from tests.server.editor.test_region_lookup import stored
from tests.server.tiny import VERSION, WordGrounder, tiny_pipeline


@pytest.fixture
def url(site: Site) -> str:
    return site.put("/a.png", png(WIDTH, HEIGHT))


def test_a_click_gives_the_mask_of_the_segmenter(service: LabelingService, url: str) -> None:
    (mask,) = masks_of(ask(service, interactive(task(1, url), [click(40, 30)])))
    assert mask.any()


def test_the_next_click_uses_the_logits_of_the_ones_before(service: LabelingService, url: str) -> None:
    items = [drawn_box(20, 15, 40, 30), click(40, 30), click(25, 20, False)]
    (mask,) = masks_of(ask(service, interactive(task(1, url), items)))
    pipeline = service.model.pipeline()
    image = service.images.load(url).pixels()
    box = Box(20, 15, 60, 45)
    embedding = pipeline.embed(image, pipeline.segmenter.window_for(box, (HEIGHT, WIDTH)))
    points = np.array([[40, 30], [25, 20]], np.float32)
    signs = np.array([1, 0])
    first = pipeline.refine(embedding, Prompts(box=box))
    second = pipeline.refine(embedding, Prompts(points[:1], signs[:1], box, first.low_res_logits))
    third = pipeline.refine(embedding, Prompts(points, signs, box, second.low_res_logits))
    shown = shown_mask(third.mask, Prompts(points, signs, box), 0, 0, new=True)  # what keeps to the box
    assert (mask ^ shown).sum() <= 0.02 * mask.size  # but for specks and pin-holes


def test_a_click_on_a_region_refines_it_under_its_own_id(service: LabelingService, url: str) -> None:
    found = task(1, url, predictions=[stored(region("19051e04eb", rectangle(20, 15, 60, 45)))])
    answer = ask(service, interactive(found, [click(40, 30), click(55, 40, False)]))
    (refined,) = answer["result"]
    assert refined["id"] == "19051e04eb"
    assert refined["from_name"] == "mask"
    assert refined["meta"]["text"][0].startswith(f"pslg model={VERSION} clicks=2 score=")


def test_a_refined_region_keeps_its_words_and_a_new_one_has_none(service: LabelingService, url: str) -> None:
    prelabel = {**region("19051e04eb", rectangle(20, 15, 60, 45)), "meta": {"text": ["expression: the ship"]}}
    (refined,) = ask(service, interactive(task(1, url, predictions=[stored(prelabel)]), [click(40, 30)]))["result"]
    assert refined["meta"]["text"][1:] == ["expression: the ship"]
    (new,) = ask(service, interactive(task(1, url), [click(40, 30)]))["result"]
    assert len(new["meta"]["text"]) == 1


def test_a_click_is_answered_on_the_image_it_lies_on(service: LabelingService, site: Site) -> None:
    body = json.loads((REPOSITORY / "tests/data/cases/two_images_config_predict.json").read_text())
    body["tasks"][0]["data"] |= {"pre": site.put("/pre.png", png(50, 40)), "post": site.put("/post.png", png(120, 90))}
    (found,) = ask(service, body)["result"]
    assert (found["from_name"], found["to_name"]) == ("mask2", "after")
    assert (found["original_width"], found["original_height"]) == (120, 90)
    assert brush_rle.decode(found["value"]["rle"], 90, 120).any()
    body["params"]["context"]["result"][0]["to_name"] = "elsewhere"
    assert ask(service, body)["result"] == []


def test_a_click_on_a_page_of_a_list_stays_on_that_page(service: LabelingService, site: Site) -> None:
    pages = [site.put("/0.png", png(50, 40)), site.put("/1.png", png(120, 90))]
    config = LABEL_CONFIG.replace('value="$image"', 'valueList="$pages"')
    found = {"id": 1, "data": {"pages": pages, "expression": "x"}}
    item = {**click(40, 30), "item_index": 1}
    (region,) = ask(service, interactive(found, [item], config))["result"]
    assert (region["item_index"], region["original_width"]) == (1, 120)


def test_the_region_itself_is_a_prompt(service: LabelingService, url: str) -> None:
    small, large = rectangle(35, 25, 45, 35), rectangle(10, 5, 70, 55)
    masks = [
        masks_of(ask(service, interactive(task(1, url, predictions=[stored(region("a", mask))]), [click(40, 30)])))[0]
        for mask in (small, large)
    ]
    assert not np.array_equal(masks[0], masks[1])


def test_a_click_beside_every_region_makes_a_new_object(service: LabelingService, url: str) -> None:
    found = task(1, url, predictions=[stored(region("old", rectangle(0, 0, 10, 10)))])
    answer = ask(service, interactive(found, [click(60, 40), click(5, 5, False)]))
    assert [item["id"] for item in answer["result"]] != ["old"]
    again = ask(service, interactive(found, [click(60, 40), click(5, 5, False)]))
    assert answer["result"][0]["id"] != again["result"][0]["id"]


def test_a_click_close_to_a_region_refines_it(service: LabelingService, url: str) -> None:
    """A wing that a pre-label misses: whatever the click outlines on its own, it is no object of its own."""
    found = task(1, url, predictions=[stored(region("old", rectangle(10, 10, 40, 40)))])
    assert ask(service, interactive(found, [click(44, 25)]))["result"][0]["id"] == "old"
    assert ask(service, interactive(found, [click(70, 25)]))["result"][0]["id"] != "old"


def test_a_click_beside_a_region_extends_it_where_both_are_one_object(service: LabelingService, url: str) -> None:
    (part,) = masks_of(ask(service, interactive(task(1, url), [click(40, 30)])))
    part[27:34, 37:44] = False  # the click falls into what is missing
    found = task(1, url, predictions=[stored(region("part", part))])
    for clicks in ([click(40, 30)], [click(40, 30), click(20, 20, False)]):
        assert [item["id"] for item in ask(service, interactive(found, clicks))["result"]] == ["part"]
    other = task(1, url, predictions=[stored(region("other", part, "ship"))])
    assert [item["id"] for item in ask(service, interactive(other, [click(40, 30)]))["result"]] != ["other"]


def test_a_negative_click_alone_cuts_the_region_under_it(service: LabelingService, url: str) -> None:
    found = task(1, url, predictions=[stored(region("a", rectangle(20, 15, 60, 45)))])
    answer = ask(service, interactive(found, [click(25, 20, False)]))
    assert [item["id"] for item in answer["result"]] in (["a"], [])
    assert ask(service, interactive(task(1, url), [click(25, 20, False)]))["result"] == []


def test_a_negative_click_before_the_first_positive_one_is_no_obstacle(service: LabelingService, site: Site) -> None:
    url = site.put("/large.png", png(10 * WIDTH, 10 * HEIGHT))
    # Far from the object: outside the window that the positive click asks for.
    clicks = [click(2, 2, False), click(40, 30), click(41, 33, False)]
    assert len(ask(service, interactive(task(1, url), clicks[:2]))["result"]) == 1
    assert len(ask(service, interactive(task(1, url), clicks))["result"]) == 1


def test_a_click_inside_a_box_of_the_draft_refines_the_box(service: LabelingService, url: str) -> None:
    together = ask(service, interactive(task(1, url), [drawn_box(20, 15, 40, 30), click(40, 30)]))
    drafted = ask(service, interactive(task(1, url, drafts=[stored(drawn_box(20, 15, 40, 30))]), [click(40, 30)]))
    alone = ask(service, interactive(task(1, url), [click(40, 30)]))
    assert without_ids(drafted) == without_ids(together)
    assert without_ids(drafted) != without_ids(alone)


def test_two_boxes_and_two_labels_are_several_suggestions(service: LabelingService, url: str) -> None:
    items = [drawn_box(0, 0, 30, 30), drawn_box(40, 20, 35, 35), click(10, 50, label="ship")]
    answer = ask(service, interactive(task(1, url), items))
    assert [item["value"]["brushlabels"] for item in answer["result"]] == [["building"], ["building"], ["ship"]]
    assert len({item["id"] for item in answer["result"]}) == 3


def test_a_text_prompt_is_pre_labelled(service: LabelingService, url: str) -> None:
    choices = {"value": {"choices": ["good"]}, "id": "c", "from_name": "quality", "to_name": "image", "type": "choices"}
    answer = ask(service, interactive(task(1, url, "the building"), [choices, text("two ships")]))
    *ships, field = answer["result"]
    assert [item["value"]["brushlabels"] for item in ships] == [["ship"], ["ship"]]
    assert field["meta"] == {"text": ["pslg asked: two ships"]}


def test_a_stroke_gives_a_mask(service: LabelingService, url: str) -> None:
    stroke = {**region("s", rectangle(30, 28, 50, 32)), "origin": "manual"}
    assert len(ask(service, interactive(task(1, url), [stroke]))["result"]) == 1


@pytest.mark.parametrize(
    "items",
    [
        [text("the lagoon")],
        [text("the absent ship")],
        [text(" ")],
        [click(40, 30, label="nobody has this label")],
        [{"type": "choices", "value": {"choices": ["good"]}, "from_name": "quality"}],
        [None],
    ],
)
def test_what_gives_nothing_is_an_empty_prediction(service: LabelingService, url: str, items: list[Any]) -> None:
    empty = {"result": [], "score": 0.0, "model_version": VERSION}
    assert ask(service, interactive(task(1, url), items)) == empty


def test_an_image_that_cannot_be_had_is_an_empty_prediction_and_a_log_line(
    service: LabelingService, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    empty = {"result": [], "score": 0.0, "model_version": VERSION}
    assert ask(service, interactive(task(31, site.url + "/none.png"), [click(40, 30)])) == empty
    assert "task 31: no suggestion" in caplog.text
    assert "404" in caplog.text


def test_a_click_does_not_decode_regions_it_is_not_on(
    service: LabelingService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    original = brush_rle.decode

    def counting(rle: Any, height: int, width: int) -> Any:
        decoded.append(len(rle))
        return original(rle, height, width)

    monkeypatch.setattr(brush_rle, "decode", counting)
    others = [region(f"r{number}", rectangle(number, 0, number + 3, 5)) for number in range(0, 60, 4)]
    found = task(1, url, predictions=[stored(*others, region("mine", rectangle(20, 15, 60, 45)))])
    service.predict(validate(PredictRequest, interactive(found, [click(40, 30)])))
    assert len(decoded) == 1


def test_a_pre_labelled_task_is_warm_at_the_first_click(settings: Settings, site: Site, url: str) -> None:
    first = LabelingService(settings, tiny_pipeline)
    first.start()
    assert first.model.wait(60)
    body = interactive(task(1, url), None)
    body["params"]["context"] = None
    (slot,) = first.predict(validate(PredictRequest, body))
    assert isinstance(slot, dict)
    first.prelabeler.expressions._compute.run(
        lambda: None
    )  # after the windows of the first clicks, which no answer waits for
    first.close()

    again = LabelingService(settings, tiny_pipeline)  # a restart, or another worker
    again.start()
    assert again.model.wait(60)
    fetched = len(site.seen)
    mask = brush_rle.decode(slot["result"][0]["value"]["rle"], HEIGHT, WIDTH)
    y, x = np.argwhere(mask)[len(np.argwhere(mask)) // 2]
    found = task(1, url, predictions=[stored(*slot["result"])])
    ask(again, interactive(found, [click(float(x) + 0.5, float(y) + 0.5)]))
    text_of_metrics = again.render_metrics().decode()
    assert 'pslg_embeddings_total{result="disk"} 1.0' in text_of_metrics
    assert 'pslg_embeddings_total{result="computed"} 0.0' in text_of_metrics
    assert len(site.seen) == fetched  # neither fetched nor revalidated
    again.close()


def test_the_config_decides_about_labels_not_the_click(service: LabelingService, url: str) -> None:
    renamed = LABEL_CONFIG.replace('<Label value="building"/>', '<Label value="roof" alias="building"/>')
    answer = ask(service, interactive(task(1, url), [click(40, 30)], renamed))
    assert answer["result"][0]["value"]["brushlabels"] == ["building"]


class SeeingGrounder(WordGrounder):
    """Sees one object in every image, a small building."""

    def object_at(self, point: Point, names: Iterable[str], image: NamedImage) -> Box | None:
        assert image.size == (HEIGHT, WIDTH)
        assert image.pixels().shape == (HEIGHT, WIDTH, 3)
        box = Box(30, 20, 50, 40)
        return box if "building" in names and box.contains(point) else None


def test_a_click_outlines_the_object_that_the_detector_sees_there(settings: Settings, url: str) -> None:
    windows: list[Box] = []

    def pipeline() -> PslgSam:
        made = tiny_pipeline()
        decode = made.segmenter.decode

        def noting(embedding: Any, prompts: Any) -> Any:
            windows.append(embedding.window)
            return decode(embedding, prompts)

        made.segmenter.decode = noting  # type: ignore[method-assign]
        return PslgSam(SeeingGrounder(), made.segmenter, made.config, made.model_version)

    service = LabelingService(settings, pipeline)
    service.start()
    assert service.model.wait(60)
    seen = ask(service, interactive(task(1, url), [click(40, 30)]))
    assert windows[0] == Box(20, 10, 60, 50)
    again = ask(service, interactive(task(1, url), [click(40, 30)]))
    assert without_ids(again) == without_ids(seen)
    windows.clear()
    ask(service, interactive(task(1, url), [click(70, 50)]))
    assert len(windows) > 2, "nothing is seen there: several windows are tried"
    windows.clear()
    region_there = task(1, url, predictions=[stored(region("p", rectangle(10, 5, 70, 55)))])
    ask(service, interactive(region_there, [click(40, 30)]))
    assert windows[0].width > 60, "a region is refined as it is"
    service.close()
