"""The grounder against a real HTTP server: what is sent, what is made of answers, and the faults that services have."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import numpy as np
import pytest
from pydantic import SecretStr

from backend.pipeline.grounding.vlm import VlmGrounder, load_vlm
from dataset_tools.errors import ConfigError, UnavailableError
from dataset_tools.geometry import Box
from tests.vlm_server import Asked, Said, VlmServer, vlm_server

IMAGE = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
KEY = "sk-very-secret-4711"
LEFT = '{"bbox_2d": [100, 100, 200, 200], "label": "boat"}'
RIGHT = '{"bbox_2d": [700, 100, 900, 400], "label": "boat"}'


@pytest.fixture
def server() -> Iterator[VlmServer]:
    with vlm_server() as running:
        yield running


def grounder(server: VlmServer, **options: object) -> VlmGrounder:
    keywords: dict[str, object] = {"coordinates": "thousandths", "deadline_s": 5.0} | options
    return load_vlm(url=SecretStr(server.url), model="pointer-1", api_key=SecretStr(KEY), **keywords)  # type: ignore[arg-type]


def test_sentence_image_model_and_key_are_sent(server: VlmServer) -> None:
    server.script(f"[{LEFT}]")
    result = grounder(server).ground(IMAGE, 'the ship "Mary"\nwhere people wait')
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.authorization == f"Bearer {KEY}"
    assert asked.body["model"] == "pointer-1"
    assert 'the ship "Mary" where people wait' in asked.words
    assert asked.image.shape == (112, 168, 3)  # multiples of 28
    (found,) = result.groundings
    assert found.box == pytest.approx(Box(16, 12, 32, 24))
    assert (found.category, found.score) == ("ship", 0.8)


def test_without_a_key_none_is_sent(server: VlmServer) -> None:
    server.script("[]")
    load_vlm(url=SecretStr(server.url), model="m", coordinates="pixels").ground(IMAGE, "the ship")
    assert server.asked[0].authorization is None


def test_pixels_are_those_of_the_image_as_sent(server: VlmServer) -> None:
    big = np.zeros((1000, 2000, 3), np.uint8)

    def say(asked: Asked) -> Said:
        height, width = asked.image.shape[:2]
        assert width * height <= 200_000
        assert width % 28 == height % 28 == 0
        return Said(f'{{"box": [0, 0, {width // 2}, {height}]}}')

    server.say = say
    (found,) = grounder(server, coordinates="pixels", max_pixels=200_000).ground(big, "the bridge").groundings
    assert found.box == pytest.approx(Box(0, 0, 1000, 1000), abs=2)


def test_the_label_names_the_category_where_the_sentence_does_not(server: VlmServer) -> None:
    server.script('[{"bbox_2d": [0, 0, 500, 500], "label": "Airplanes"}]')
    (found,) = grounder(server).ground(IMAGE, "what waits for take-off").groundings
    assert found.category == "airplane"


@pytest.mark.parametrize("said", ["[]", "none"])
def test_nothing_found_is_an_abstention(server: VlmServer, said: str) -> None:
    server.script(said)
    result = grounder(server).ground(IMAGE, "the ship")
    assert result.abstention is not None
    assert result.abstention.code == "absent"
    assert grounder(server).ground(IMAGE, "  ").abstention.code == "empty-expression"  # type: ignore[union-attr]
    assert len(server.asked) == 1  # nobody is asked about nothing


def test_of_several_boxes_the_relation_program_picks_or_it_abstains(server: VlmServer) -> None:
    server.script(f"[{LEFT}, {RIGHT}]")
    (found,) = grounder(server).ground(IMAGE, "the largest ship").groundings
    assert found.box.x0 == pytest.approx(112)
    result = grounder(server).ground(IMAGE, "the ship")
    assert result.abstention is not None
    assert result.abstention.code == "ambiguous"
    assert len(result.abstention.candidates) == 2
    assert len(grounder(server).ground(IMAGE, "all the ships").groundings) == 2


@pytest.mark.parametrize(("answer", "score"), [(RIGHT, 0.8), (LEFT, 0.4)])
def test_a_disagreement_with_the_relation_program_lowers_the_score(
    server: VlmServer, answer: str, score: float
) -> None:
    server.say = lambda asked: Said(f"[{LEFT}, {RIGHT}]" if "all the" in asked.words else answer)
    (found,) = grounder(server, check=True).ground(IMAGE, "the rightmost ship").groundings
    assert found.score == pytest.approx(score)
    assert len(server.asked) == 2
    grounder(server, check=True).ground(IMAGE, "the ship")  # nothing to check
    assert len(server.asked) == 3


def test_what_can_pass_is_tried_again(server: VlmServer) -> None:
    server.script(
        Said(status=429, headers={"Retry-After": "0.05"}), Said(status=503), Said(drop=True), Said(f"[{LEFT}]")
    )
    calls: list[tuple[object, ...]] = []
    asking = grounder(server, deadline_s=20.0)
    asking.count_calls(lambda *call: calls.append(call))
    assert len(asking.ground(IMAGE, "the ship").groundings) == 1
    assert [call[0] for call in calls] == ["throttled", "failed", "failed", "answered"]
    assert calls[-1][2:] == (300, 20)


def test_nonsense_is_sent_back_with_its_reason_and_then_said(server: VlmServer) -> None:
    server.script("I see a ship!", f"[{LEFT}]")
    assert len(grounder(server).ground(IMAGE, "the ship").groundings) == 1
    turns = server.asked[1].body["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == "I see a ship!"
    assert "not JSON" in turns[2]["content"]
    server.asked.clear()
    server.script("I see a ship!")
    with pytest.raises(UnavailableError, match=r"no usable boxes in 3 attempt.*I see a ship"):
        grounder(server).ground(IMAGE, "the ship")
    assert len(server.asked) == 3
    server.script(Said("[", finish="length"))
    with pytest.raises(UnavailableError, match="max_tokens"):
        grounder(server).ground(IMAGE, "the ship")


@pytest.mark.parametrize(
    "fault",
    [Said(status=500), Said(pause=30.0), Said("[]", trickle=True), Said(status=429, headers={"Retry-After": "60"})],
)
def test_the_deadline_holds(server: VlmServer, fault: Said) -> None:
    server.script(fault)
    start = time.monotonic()
    with pytest.raises(UnavailableError, match="no answer in time"):
        grounder(server, deadline_s=1.0).ground(IMAGE, "the ship")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Said(status=401, raw=f"bad key {KEY}".encode()), r"refused: status 401: bad key \*\*\* \(the variable"),
        (Said(status=404, raw=b'{"error": "model not found"}'), "status 404: .*model not found"),
        (Said(status=302, headers={"Location": "http://127.0.0.1:1/"}), "status 302"),
        (Said(raw=b'{"answer": []}'), "another form"),
    ],
)
def test_what_cannot_pass_is_said_at_once_without_secrets(
    server: VlmServer, fault: Said, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(fault)
    with caplog.at_level(logging.DEBUG), pytest.raises(UnavailableError, match=said) as raised:
        grounder(server).ground(IMAGE, "the ship")
    assert len(server.asked) == 1
    assert KEY not in str(raised.value) + caplog.text
    assert raised.value.__cause__ is None


def test_nobody_there_is_said_without_the_address_s_path() -> None:
    address = SecretStr("http://127.0.0.1:9/v1/tenant-secret")
    with pytest.raises(UnavailableError, match=r"'m' at 127.0.0.1:9 gave no answer") as raised:
        load_vlm(url=address, model="m", coordinates="pixels", deadline_s=1.0).ground(IMAGE, "the ship")
    assert "tenant-secret" not in str(raised.value)


def test_options_that_cannot_be_are_named() -> None:
    url = SecretStr("http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="either weights"):
        load_vlm(coordinates="pixels")
    with pytest.raises(ConfigError, match=r"options\.model: missing"):
        load_vlm(url=url, coordinates="pixels")
    with pytest.raises(ConfigError, match="coordinates is None"):
        load_vlm(url=url, model="m")
    with pytest.raises(ConfigError, match="attempts is 0"):
        load_vlm(url=url, model="m", coordinates="pixels", attempts=0)
    with pytest.raises(ConfigError, match="http://"):
        load_vlm(url=SecretStr("localhost:11434"), model="m", coordinates="pixels")
