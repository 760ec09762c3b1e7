"""What a language model says, in the forms in which models say it, and what is refused."""

from __future__ import annotations

import pytest

from backend.pipeline.grounding.vlm.answers import AnswerError, Frame, read_answer
from dataset_tools.geometry import Box

PIXELS = Frame("pixels", seen=(560, 280), image=(1120, 280))
THOUSANDTHS = Frame("thousandths", seen=(560, 280), image=(1120, 280))
BOX = '{"bbox_2d": [56, 28, 112, 56], "label": "ship"}'


@pytest.mark.parametrize(
    "text",
    [
        f"[{BOX}]",
        BOX,
        f"```json\n[\n\t{BOX}\n]\n```",
        f"```\n{BOX}\n```",
        f"Here it is:\n```json\n[{BOX}]\n```\nAnything else?",
        f"<think>The left one, [1, 2].</think>\n<answer>[{BOX}]</answer>",
        '[{"box": [56.0, 28, 112, 56], "label": "ship"}]',
        f"[{BOX}, {BOX}]",
        '[{"bbox_2d": [56, 28, 112, 56], "label": "ship"}, {"bbox_2d": [56, 28, 113, 56], "label": "ship"}]',
    ],
)
def test_boxes_are_read_in_every_usual_form(text: str) -> None:
    (found,) = read_answer(text, PIXELS)
    assert found.box == Box(112, 28, 224, 56)
    assert (found.label, found.score) == ("ship", None)


def test_thousandths_do_not_depend_on_what_the_model_saw() -> None:
    (found,) = read_answer('{"bbox_2d": [100, 500, 250, 1000], "score": 0.4}', THOUSANDTHS)
    assert found.box == Box(112, 140, 280, 280)
    assert (found.label, found.score) == ("", 0.4)


@pytest.mark.parametrize("text", ["[]", "```json\n[]\n```", "none", "None.", '"none"', "<think>no ship</think>\n[]"])
def test_nothing_is_an_answer(text: str) -> None:
    assert read_answer(text, PIXELS) == []


def test_boxes_are_clipped_but_not_found_beside_the_image() -> None:
    (found,) = read_answer('{"bbox_2d": [-3, 0, 563, 281]}', PIXELS)
    assert found.box == Box(0, 0, 1120, 280)
    with pytest.raises(AnswerError, match="set coordinates to thousandths"):
        read_answer('{"bbox_2d": [300, 200, 900, 700]}', PIXELS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("The ship is at the top left.", "not JSON"),
        ('[{"bbox_2d": [56, 28, 112', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"bbox_2d": [NaN, 0, 1, 1]}', "NaN is no number"),
        ('{"bbox_2d": [1e999, 0, 1, 1]}', "four numbers"),
        ("null", "a list of boxes was wanted"),
        ("[56, 28, 112, 56]", "an object with bbox_2d"),
        ('[{"label": "ship"}]', "needs one of bbox_2d and box"),
        ('[{"bbox_2d": [1, 2, 3, 4], "box": [1, 2, 3, 4]}]', "needs one of"),
        ('[{"bbox_2d": [1, 2, 3]}]', "four numbers"),
        ('[{"bbox_2d": [1, 2, 3, true]}]', "four numbers"),
        ('[{"bbox_2d": ["1", 2, 3, 4]}]', "four numbers"),
        ('[{"bbox_2d": [112, 56, 56, 28]}]', "is empty"),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": 5}]', "a label is a word"),
        ('[{"bbox_2d": [1, 2, 3, 4], "score": 90}]', "0 to 1"),
        (f"```json\n[{BOX}]\n```\nor\n```json\n[]\n```", "2 fenced blocks"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, problem: str) -> None:
    with pytest.raises(AnswerError, match=problem):
        read_answer(text, PIXELS)
