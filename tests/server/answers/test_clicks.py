"""Interactive answers: which region, which prompts, and that nothing but the request decides."""

from __future__ import annotations

import copy
import itertools
import json
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.pipeline import PslgSam
from backend.pipeline.segmentation.mask_cleaning import shown_mask
from backend.pipeline.types import Box, NamedImage, Point, Prompts
from backend.server.protocol import PredictRequest, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools import brush_rle
from tests.conftest import REPOSITORY
from tests.server.conftest import LABEL_CONFIG, Site, interactive, make_site, png, task
from tests.server.editor.test_region_lookup import stored
from tests.server.tiny import VERSION, WordGrounder, tiny_pipeline

WIDTH, HEIGHT = 80, 60


def click(
    x: float, y: float, positive: bool | None = True, label: str = "building", identity: str = ""
) -> dict[str, Any]:
    item: dict[str, Any] = {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": {"x": 100 * x / WIDTH, "y": 100 * y / HEIGHT, "width": 0.3, "keypointlabels": [label]},
        "id": identity or f"{x}-{y}-{positive}",
        "from_name": "point",
        "to_name": "image",
        "type": "keypointlabels",
    }
    return item if positive is None else {**item, "is_positive": positive}


def drawn_box(x: float, y: float, w: float, h: float, label: str = "building") -> dict[str, Any]:
    value = {"x": 100 * x / WIDTH, "y": 100 * y / HEIGHT, "width": 100 * w / WIDTH, "height": 100 * h / HEIGHT}
    return {
        "value": {**value, "rotation": 0, "rectanglelabels": [label]},
        "id": f"box {x} {y}",
        "from_name": "box",
        "to_name": "image",
        "type": "rectanglelabels",
    }


def text(*expressions: str) -> dict[str, Any]:
    return {
        "value": {"text": list(expressions)},
        "id": "t",
        "from_name": "prompt",
        "to_name": "image",
        "type": "textarea",
    }


def region(identity: str, mask: Any, label: str = "building") -> dict[str, Any]:
    value = {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": [label]}
    return {"id": identity, "type": "brushlabels", "from_name": "mask", "to_name": "image", "value": value}


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Any:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def ask(service: LabelingService, body: dict[str, Any]) -> Any:
    (answer,) = service.predict(validate(PredictRequest, body))
    return answer


def masks_of(answer: Any) -> list[Any]:
    return [brush_rle.decode(found["value"]["rle"], HEIGHT, WIDTH) for found in answer["result"]]


def without_ids(answer: Any) -> Any:
    answer = copy.deepcopy(answer)
    for found in answer["result"]:
        del found["id"]
    return answer


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


@pytest.mark.parametrize("order", [(1, 2), (2, 1), (1, 2, 3), (3, 1, 2)])
def test_clicks_in_a_row_never_lose_the_last(
    service: LabelingService, url: str, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    """The editor sends the clicks so far at each click and waits for no answer; requests may overtake one another."""
    clicks = [click(40, 30), click(43, 32), click(25, 20, False)]
    bodies = {count: interactive(task(1, url), clicks[:count]) for count in order}
    expected = without_ids(ask(service, bodies[max(order)]))
    segmenter = service.model.pipeline().segmenter
    fresh = LabelingService(service.settings, lambda: service.model.pipeline())
    fresh.start()
    assert fresh.model.wait(60)
    decode = segmenter.decode

    def slow(*given: Any) -> Any:
        time.sleep(0.05)
        return decode(*given)

    monkeypatch.setattr(segmenter, "decode", slow)
    answers: dict[int, Any] = {}

    def made(count: int) -> None:
        answers[count] = without_ids(ask(fresh, bodies[count]))

    threads = [threading.Thread(target=made, args=(count,)) for count in order]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    fresh.close()
    assert answers[max(order)] == expected
    assert expected["result"]


# Statelessness: whatever came before, in whatever order and from however many threads, a request has one answer.


@pytest.fixture(scope="module")
def lasting_site() -> Iterator[Site]:
    yield from make_site()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelingService]:
    folder = tmp_path_factory.mktemp("state")
    service = LabelingService(Settings(state_dir=folder, image_hosts=("127.0.0.1",), model_threads=1), tiny_pipeline)
    service.start()
    assert service.model.wait(60)
    yield service
    service.close()


points = st.tuples(st.integers(1, WIDTH - 2), st.integers(1, HEIGHT - 2), st.sampled_from([True, True, False, None]))
sessions = st.lists(points, min_size=1, max_size=4)
carried = st.sampled_from(["nothing", "prediction", "draft", "box in draft"])


def request(url: str, session: list[tuple[int, int, bool | None]], carries: str) -> dict[str, Any]:
    more: dict[str, Any] = {
        "nothing": {},
        "prediction": {"predictions": [stored(region("p", rectangle(10, 5, 70, 55)))]},
        "draft": {"drafts": [stored(region("d", rectangle(20, 15, 60, 45)))]},
        "box in draft": {"drafts": [stored(drawn_box(5, 5, 70, 50))]},
    }[carries]
    return interactive(task(1, url, **more), [click(x, y, sign) for x, y, sign in session])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(sessions, carried), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_order_interleaving_and_restarts_change_nothing(
    lasting: LabelingService,
    lasting_site: Site,
    tmp_path_factory: pytest.TempPathFactory,
    made: list[tuple[list[tuple[int, int, bool | None]], str]],
    rng: random.Random,
) -> None:
    url = lasting_site.put("/a.png", png(WIDTH, HEIGHT))
    # Every prefix of every session: clicks one by one, and undo, which is a shorter list again.
    requests = [
        request(url, session[:count], carries) for session, carries in made for count in range(1, len(session) + 1)
    ]
    expected = [without_ids(ask(lasting, body)) for body in requests]
    shuffled = list(range(len(requests)))
    rng.shuffle(shuffled)
    assert [without_ids(ask(lasting, requests[index])) for index in shuffled] == [expected[index] for index in shuffled]

    folder = tmp_path_factory.mktemp("fresh")
    fresh = LabelingService(Settings(state_dir=folder, image_hosts=("127.0.0.1",), model_threads=1), tiny_pipeline)
    fresh.start()
    assert fresh.model.wait(60)
    last = shuffled[-1]
    assert without_ids(ask(fresh, requests[last])) == expected[last]
    fresh.close()


def test_overlapping_requests_of_several_annotators_get_their_own_answers(
    lasting: LabelingService, lasting_site: Site
) -> None:
    url = lasting_site.put("/a.png", png(WIDTH, HEIGHT))
    bodies = [
        request(url, [(x, y, True)], carries)
        for x, y in ((10, 10), (40, 30), (70, 50))
        for carries in ("nothing", "draft")
    ]
    expected = [without_ids(ask(lasting, body)) for body in bodies]
    answers: dict[tuple[int, int], Any] = {}

    def annotator(number: int) -> None:
        for index, body in itertools.chain(enumerate(bodies), enumerate(bodies)):
            answers[number, index] = without_ids(ask(lasting, body))

    threads = [threading.Thread(target=annotator, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers[number, index] == expected[index] for number in range(6) for index in range(len(bodies)))


def test_what_was_pre_labelled_before_does_not_change_a_click(lasting: LabelingService, lasting_site: Site) -> None:
    url = lasting_site.put("/b.png", png(WIDTH, HEIGHT, seed=5))
    body = request(url, [(40, 30, True), (20, 20, False)], "nothing")
    before = without_ids(ask(lasting, body))
    batch_body = copy.deepcopy(body)
    batch_body["params"]["context"] = None
    lasting.predict(validate(PredictRequest, batch_body))
    assert without_ids(ask(lasting, body)) == before


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


def test_cold_images_hold_up_no_warm_click_and_are_served_in_their_order(
    service: LabelingService, site: Site, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ask(service, interactive(task(0, url), [click(40, 30)]))
    segmenter: Any = service.model.pipeline().segmenter
    embed = segmenter.embed
    release, changed, begun = threading.Event(), threading.Condition(), []

    def slow(image: Any, window: Any = None, *, key: str | None = None) -> Any:
        with changed:
            if key not in begun:
                begun.append(key)
            changed.notify_all()
        assert release.wait(60)
        return embed(image, window, key=key)

    monkeypatch.setattr(segmenter, "embed", slow)
    identities, answers, threads = [], {}, []
    for number in range(1, 8):
        cold = site.put(f"/{number}.png", png(WIDTH, HEIGHT, seed=number))
        identities.append(service.images.load(cold).identity)

        def run(number: int = number, cold: str = cold) -> None:
            answers[number] = ask(service, interactive(task(number, cold), [click(40, 30)]))

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        with changed:
            assert changed.wait_for(lambda: bool(begun), 30)
        turns = service.embeddings._encode
        for _ in range(3000):
            if len(turns._waiting) == number - 1:
                break
            release.wait(0.01)
        assert len(turns._waiting) == number - 1
    warm: list[Any] = []
    thread = threading.Thread(target=lambda: warm.append(ask(service, interactive(task(0, url), [click(40, 30)]))))
    thread.start()
    thread.join(30)
    assert without_ids(warm[0]) == without_ids(known)  # although seven wait for the encoder
    assert not answers
    release.set()
    for thread in threads:
        thread.join(60)
    assert begun == identities
    assert all(answer["result"] for answer in answers.values())
