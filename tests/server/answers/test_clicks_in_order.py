"""Nothing but the request decides about the answer to a click: no order, no neighbour, no restart."""

from __future__ import annotations

import copy
import itertools
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.server.protocol import PredictRequest, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from tests.server.answers.clicking import HEIGHT, WIDTH, ask, click, drawn_box, rectangle, region, without_ids
from tests.server.conftest import Site, interactive, make_service, make_site, png, task
from tests.server.editor.test_region_lookup import stored
from tests.server.tiny import tiny_pipeline


@pytest.fixture
def url(site: Site) -> str:
    return site.put("/a.png", png(WIDTH, HEIGHT))


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
    yield from make_service(Settings(state_dir=folder, image_hosts=("127.0.0.1",), model_threads=1))


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
