"""Notes and candidates state nothing: an annotation is what it is without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dataset_tools.label_studio.annotations import prompt_texts
from dataset_tools.label_studio.exports import samples_of_task
from dataset_tools.label_studio.images import addresses, image_at
from dataset_tools.label_studio.import_rules import ImportRules, Problem
from dataset_tools.label_studio.note_counts import NoteCounts
from dataset_tools.label_studio.notes import (
    NOTE,
    UNDECIDED,
    Note,
    answered,
    asked,
    candidate,
    note_lines,
    read_notes,
    stated,
)
from dataset_tools.label_studio.regions import provenance, words
from dataset_tools.label_studio.shapes import written

AMBIGUOUS = Note("the airplane", "ambiguous", "2 objects fit 'the airplane' alike: say which.")


def note(*notes: Note) -> dict[str, Any]:
    text = [str(item) for item in notes]
    return {"id": "n", "from_name": NOTE, "to_name": "image", "type": "textarea", "value": {"text": text}}


def typed(*texts: str, shown: Sequence[str] = ()) -> dict[str, Any]:
    meta = {"text": ["\n".join(map(asked, shown))]}
    value = {"text": list(texts)}
    return {"id": "p", "from_name": "prompt", "to_name": "image", "type": "textarea", "value": value, "meta": meta}


def region(number: int, *marks: str, expression: str = "the airplane") -> dict[str, Any]:
    mask = np.zeros((20, 40), bool)
    mask[4:16, 10 * number : 10 * number + 8] = True
    return {
        "id": f"r{number}",
        "from_name": "mask",
        "to_name": "image",
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": 40,
        "original_height": 20,
        "image_rotation": 0,
        "value": {**written(mask, "brushlabels")[0], "brushlabels": ["airplane"]},
        "meta": {"text": [provenance("tiny-1", 0, 0.5), *words(expression), *marks]},
    }


def samples(result: list[dict[str, Any]], **data: Any) -> list[tuple[str, ...]]:
    """The expressions of each sample that the export makes of one annotation."""
    task = {"id": 1, "data": {"image": "/a.png", **data}, "annotations": [{"id": 1, "result": result}]}
    problems: list[Problem] = []
    found = samples_of_task(task, ImportRules(), problems)
    return [tuple(text for record in sample.records for text in [record.expression]) for sample in found]


def test_a_note_reads_back_as_it_was_written() -> None:
    notes = [AMBIGUOUS, Note("the “old” ship (left):\none", "unknown-word", "'old' is not known: leave it out")]
    read = read_notes(note_lines(notes))
    assert [item.reason for item in read] == ["ambiguous", "unknown-word"]
    assert read[0] == AMBIGUOUS
    assert read[1].expression == "the “old” ship (left): one"
    assert read_notes("a remark of somebody else's") == read_notes(None) == []


def test_a_note_is_neither_words_nor_an_object() -> None:
    result = [note(AMBIGUOUS), region(0)]
    assert [item["type"] for item in stated(result)] == ["brushlabels"]
    assert prompt_texts(stated(result)) == []
    assert samples(result, **{NOTE: str(AMBIGUOUS)}) == [("the airplane",)]


def test_a_note_names_no_image() -> None:
    task = {"picture": "http://a/b.png", NOTE: "/data/upload/1/x.png"}
    assert addresses(task, None) == ["http://a/b.png"]
    assert image_at(task, "image", None, None) == "http://a/b.png"


def test_a_typed_expression_without_an_answer_is_not_kept_as_true() -> None:
    drawn = {**region(0), "meta": {}, "origin": "manual"}
    assert samples([typed("the airplane"), drawn]) == [("the airplane",)]
    assert samples([typed("the airplane"), note(AMBIGUOUS), drawn]) == [("",)]  # an object without words
    assert stated([typed("the ship", "the airplane"), note(AMBIGUOUS)])[0]["value"]["text"] == ["the ship"]
    # Answered after all, by clicks on a candidate that carries the words: the text stays.
    assert stated([typed("the airplane"), note(AMBIGUOUS), region(1)])[0]["value"]["text"] == ["the airplane"]


def test_a_typed_expression_whose_suggestion_was_rejected_is_not_kept_as_true() -> None:
    drawn = {**region(0), "meta": {}, "origin": "manual"}
    left, right = "the airplane on the left", "the airplane on the right"
    assert samples([typed(left, shown=[left]), drawn]) == [("",)]
    assert samples([typed(left, right, shown=[left]), drawn]) == [(right,)]  # typed where no model was asked
    assert samples([typed(left, right, shown=[left, right]), region(1, expression=right)]) == [(right,)]
    # Its own words, typed for the region itself, are its own.
    own = {**typed(left), "from_name": "words", "id": "r0"}
    assert samples([typed(left, shown=[left]), drawn, own]) == [(left,)]


def test_an_annotation_of_rejected_texts_says_nothing_and_that_is_said() -> None:
    ship = "the ship"
    problems: list[Problem] = []
    for result in (
        [typed(ship, shown=[ship])],
        [typed(ship)],
        [region(1, candidate(1, 2)), region(2, candidate(2, 2))],
    ):
        task = {
            "id": 1,
            "data": {"image": "/a.png", "expression": "the airplane"},
            "annotations": [{"id": 1, "result": result}],
        }
        found: list[Problem] = []
        assert not list(samples_of_task(task, ImportRules(), found))
        problems += found
    begin = "it was submitted without an object, but not empty: "
    assert [problem.message.split(";")[0].removeprefix(begin) for problem in problems] == [
        "nothing was accepted for what was typed (the ship)",
        "nothing was accepted for what was typed (the ship)",
        "none of several candidates was chosen",
    ]
    assert {problem.kind for problem in problems} == {"left-out"}


@pytest.mark.parametrize(
    ("left", "objects"),
    [
        ([1, 2, 3], []),
        ([2, 3], []),
        ([2], ["r2"]),
    ],
)
def test_of_candidates_one_that_is_left_is_an_object_and_several_are_none(left: list[int], objects: list[str]) -> None:
    result = [region(number, candidate(number, 3)) for number in left]
    found = stated([note(AMBIGUOUS), *result])
    assert [item["id"] for item in found if item["type"] != UNDECIDED] == objects
    assert len(found) == len(left)  # not empty: "nothing was decided" is not "there is none"
    assert samples(result, expression="the airplane") == [("the airplane",)] * len(objects)


def test_beside_a_chosen_object_the_candidate_left_is_none() -> None:
    chosen, left = region(1), region(2, candidate(2, 2))
    other = region(3, candidate(1, 2), expression="the ship")
    found = stated([chosen, left, other])
    assert [item["type"] for item in found] == ["brushlabels", UNDECIDED, "brushlabels"]


def test_the_regions_of_one_candidate_in_two_controls_are_one_object() -> None:
    brush, outline = region(1, candidate(1, 2)), {**region(1, candidate(1, 2)), "id": "poly"}
    assert all(item["type"] == "brushlabels" for item in stated([brush, outline]))


def test_a_candidate_of_a_prediction_is_never_an_answer() -> None:
    assert answered([note(AMBIGUOUS), region(1, candidate(1, 1))]) == []
    assert len(answered([region(1)])) == 1


def test_counts_by_reason_and_the_words_that_are_not_known() -> None:
    unknown = Note("the foobar near the house", "unknown-category", "'foobar' is no known category")
    counts = NoteCounts.of([note_lines([AMBIGUOUS, unknown]), str(unknown), None])
    assert counts.reasons == {"ambiguous": 1, "unknown-category": 2}
    assert counts.words == {"foobar": 2}
    assert counts.lines()[0] == "expressions without an answer: 2 unknown-category, 1 ambiguous"
