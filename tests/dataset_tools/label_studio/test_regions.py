"""What a region says of itself is read as it was written."""

from __future__ import annotations

from typing import Any

import pytest

from dataset_tools.expressions.reading import reading_of
from dataset_tools.label_studio.regions import provenance, read_info, words


def test_what_a_region_says_of_its_origin_is_read_as_it_was_written() -> None:
    region: dict[str, Any] = {"type": "rectanglelabels", "value": {}}
    region["meta"] = {"text": [provenance("compact-01234567", 3, 0.8766)]}
    info = read_info(region, {})
    assert (info.model, info.clicks, info.score) == ("compact-01234567", 3, 0.877)


@pytest.mark.parametrize(
    ("expression", "guessed", "unread"),
    [
        ("the ship beside the bridge", (), ()),
        ("the truck", ("truck: large vehicle",), ()),
        ("the ship near the small cars", ("cars: small vehicle",), ()),
        ("the leftmsot ship with faded lines", ("leftmsot: leftmost",), ("faded", "lines")),
        ("the ship " * 201, (), ("everything after word 400",)),
    ],
)
def test_what_is_guessed_and_passed_over(expression: str, guessed: tuple[str, ...], unread: tuple[str, ...]) -> None:
    reading = reading_of(expression)
    assert (reading.guessed, reading.unread) == (guessed, unread)


@pytest.mark.parametrize(
    ("labels", "label"),
    [
        (["more like this"], None),
        (["More_like_these"], None),
        (["more like this", "ship"], "ship"),
        ("more of this", None),
        (["More rafts"], "More rafts"),
    ],
)
def test_the_label_to_find_more_with_is_no_object_s(labels: object, label: str | None) -> None:
    assert read_info({"type": "brushlabels", "value": {"brushlabels": labels}}, {}).label == label


def test_the_words_of_a_region_say_what_was_guessed_and_passed_over() -> None:
    region: dict[str, Any] = {"type": "brushlabels", "value": {}}
    region["meta"] = {"text": words("the leftmsot  ship with faded lines")}
    info = read_info(region, {})
    assert info.expression == "the leftmsot ship with faded lines"
    assert (info.reading.guessed, info.reading.unread) == (("leftmsot: leftmost",), ("faded", "lines"))
