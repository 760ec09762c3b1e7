"""Categories under invented words, and their first objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.learning.simulation.first_objects import accepted
from backend.learning.simulation.words import read_words, renamed
from dataset_tools.errors import ConfigError
from dataset_tools.labelled import LabelledExpression, LabelledImage, LabelledObject
from tests.learning.annotations.test_labelled import HEIGHT, WIDTH, square


def image(*labels: str, expressions: tuple[LabelledExpression, ...] = (), name: str = "a") -> LabelledImage:
    objects = tuple(LabelledObject.of(label, square(1 + 12 * n, 1)) for n, label in enumerate(labels))
    complete = frozenset(item.category for item in objects)
    return LabelledImage(Path(name), HEIGHT, WIDTH, objects, expressions, complete, sha256=name)


def test_objects_and_their_expressions_go_by_the_new_word() -> None:
    asked = (
        LabelledExpression("all the swimming pools", (0,), label="swimmingpool"),
        LabelledExpression("the ship left of the swimming pool", (1,), label="ship"),
        LabelledExpression("the lido", (0,), label="swimmingpool"),
    )
    found = renamed(image("swimmingpool", "ship", expressions=asked), {"swimmingpool": "quibble"})
    assert [item.category for item in found.objects] == ["quibble", "ship"]
    assert found.complete == {"quibble", "ship"}
    assert [(one.text, one.label) for one in found.expressions] == [
        ("all the quibbles", "quibble"),
        ("the ship left of the quibble", "ship"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("zebra=quibble", "zebra=quibble"),
        ("ship", "CATEGORY=WORD"),
        ("ship=vessel", "a word for ship"),
        ("ship=quibble,bridge=quibble", "may stand there once"),
    ],
)
def test_words_that_cannot_serve_are_named(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_words(text)


def test_accepted_objects_are_whole_ones_and_complete_says_so() -> None:
    images = [
        image("ship", name="none"),
        image("quibble", "quibble", name="two"),
        image("quibble", "quibble", name="more"),
    ]
    found = accepted(images, "quibble", 3)
    assert [(one.sha256, len(one.objects), sorted(one.complete)) for one in found] == [
        ("two", 2, ["quibble"]),
        ("more", 1, []),
    ]
