"""What the relation program leaves open, put to a real HTTP server: what is sent, and what is made of the answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import pytest
from pydantic import SecretStr

from backend.pipeline.grounding.vlm import load_vlm
from backend.pipeline.grounding.vlm.endpoint import Endpoint
from backend.pipeline.grounding.vlm.settling import SettledGrounder, Settler, numbered
from backend.pipeline.types import Abstention, AbstentionCode, Grounding, GroundingResult, Image
from dataset_tools.errors import UnavailableError
from dataset_tools.geometry import Box
from tests.vlm_server import Said, VlmServer, vlm_server

IMAGE = np.full((120, 160, 3), 90, np.uint8)
SHIPS = (
    Grounding(Box(10, 30, 40, 60), 0.9, "ship"),
    Grounding(Box(100, 30, 140, 70), 0.8, "ship"),
    Grounding(Box(60, 80, 90, 110), 0.5, "ship"),
)
TWO = '[{"bbox_2d": [100, 100, 200, 200]}, {"bbox_2d": [700, 100, 900, 400]}]'


class Program:
    """A grounder that gives the same answer to everything."""

    known_categories = frozenset({"ship"})

    def __init__(self, result: GroundingResult) -> None:
        self.result = result

    def ground(
        self, image: Image, expression: str, *, key: str | None = None, labels: Collection[str] = ()
    ) -> GroundingResult:
        """That answer."""
        return self.result


def left_open(code: AbstentionCode, candidates: tuple[Grounding, ...] = SHIPS) -> GroundingResult:
    return GroundingResult((), Abstention(code, "which?", candidates), SHIPS)


@pytest.fixture
def server() -> Iterator[VlmServer]:
    with vlm_server() as running:
        yield running


def settled(server: VlmServer, result: GroundingResult, deadline_s: float = 5.0) -> SettledGrounder:
    chat = Endpoint(SecretStr(server.url), "chooser-1", None, max_pixels=1 << 20, max_tokens=64)
    return SettledGrounder(Program(result), chat, Settler(chat, 0.5), deadline_s)


@pytest.mark.parametrize("code", ["ambiguous", "unknown-word"])
@pytest.mark.parametrize(
    "said", ['{"number": 2}', 'It is\n```json\n{"number": 2}\n```', '<think>{1}</think>{"number":2}']
)
def test_the_candidate_that_it_names_is_taken_at_a_lower_score(
    server: VlmServer, code: AbstentionCode, said: str
) -> None:
    server.script(said)
    result = settled(server, left_open(code)).ground(IMAGE, 'the ship\n"Mary"')
    (found,) = result.groundings
    assert (found.box, found.score, result.abstention) == (SHIPS[1].box, 0.4, None)
    (asked,) = server.asked
    assert "numbered 1 to 3" in asked.words
    assert 'the ship "Mary"' in asked.words
    assert len(np.unique(asked.image.reshape(-1, 3), axis=0)) > 4  # the boxes are drawn


@pytest.mark.parametrize(
    "said",
    [
        '{"number": null}',
        '{"number": 0}',
        '{"number": 4}',
        '{"number": true}',
        '{"number": "2"}',
        '{"number": 1.0}',
        '{"number": 1} or {"number": 2}',
        "2",
        "the second one",
        "[]",
        "{number: 2}",
        "",
    ],
)
def test_without_a_name_the_abstention_stands(server: VlmServer, said: str) -> None:
    server.script(said)
    result = left_open("ambiguous")
    assert settled(server, result).ground(IMAGE, "the ship") is result


def test_an_answer_that_is_cut_off_names_nothing(server: VlmServer) -> None:
    server.script(Said('{"number": 1}', finish="length"))
    result = left_open("ambiguous")
    assert settled(server, result).ground(IMAGE, "the ship") is result


@pytest.mark.parametrize(
    "result",
    [
        GroundingResult(SHIPS[:1], None, SHIPS),
        left_open("absent"),
        left_open("unknown-category", ()),
        left_open("empty-expression", ()),
        left_open("unknown-word", SHIPS[:1]),
    ],
)
def test_nobody_is_asked_where_nothing_is_left_open(server: VlmServer, result: GroundingResult) -> None:
    assert settled(server, result).ground(IMAGE, "the ship") is result
    assert server.asked == []


def test_a_model_that_cannot_be_reached_is_no_answer(server: VlmServer) -> None:
    server.script(Said(status=503))
    with pytest.raises(UnavailableError):
        settled(server, left_open("ambiguous"), deadline_s=0.6).ground(IMAGE, "the ship")


def test_numbers_stay_in_the_image_and_the_image_stays_as_it_is() -> None:
    corners = tuple(Grounding(Box(x, y, x + 8, y + 8), 1.0) for x in (0, 152) for y in (0, 112))
    before = IMAGE.copy()
    drawn = numbered(IMAGE, corners)
    assert np.array_equal(IMAGE, before)
    assert drawn.shape == IMAGE.shape
    for one in corners:  # the number's black plate is there
        x, y = int(one.box.x0), int(one.box.y0)
        around = drawn[max(y - 20, 0) : y + 32, max(x - 20, 0) : x + 24]
        assert (around == 0).all(axis=-1).any()


def test_the_setting_of_the_pointing_model(server: VlmServer) -> None:
    """Two boxes for "the ship": the program cannot choose; with ``settle`` the model is asked which."""
    pointing = {"url": SecretStr(server.url), "model": "m", "coordinates": "thousandths", "deadline_s": 5.0}
    server.script(TWO)
    left = load_vlm(**pointing).ground(IMAGE, "the ship")  # type: ignore[arg-type]
    assert left.abstention is not None
    server.script(TWO, '{"number": 1}')
    result = load_vlm(settle=True, settled=0.25, **pointing).ground(IMAGE, "the ship")  # type: ignore[arg-type]
    (found,) = result.groundings
    assert found.box == pytest.approx(Box(16, 12, 32, 24))
    assert found.score == pytest.approx(0.2)


def test_all_of_them_are_not_chosen_among(server: VlmServer) -> None:
    server.script(TWO)
    pointing = load_vlm(url=SecretStr(server.url), model="m", coordinates="thousandths", settle=True)
    assert len(pointing.ground(IMAGE, "all the ships").groundings) == 2
    assert len(server.asked) == 1
