"""The walk over words that change nothing."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harmless_words import expressions_of, idle_words

HARMLESS = frozenset(
    [
        "a",
        "all",
        "an",
        "at",
        "driving",
        "expressway",
        "going",
        "has",
        "in",
        "is",
        "it",
        "little",
        "lying",
        "much",
        "on",
        "parked",
        "running",
        "the",
        "with",
    ]
)
"""Words that may be left out of sentences of RRSIS-D: the rest of the phrase says the same without them."""


def test_a_word_that_changes_nothing_is_found() -> None:
    found = idle_words(["please the white ship on the left", "the white ship"])
    assert found["please"].idle == found["please"].said == 1
    assert found["the"].said == 3
    assert "white" not in found
    assert "left" not in found


def test_only_harmless_words_are_passed_over(shared_data: Path) -> None:
    texts = list(dict.fromkeys(expressions_of(shared_data / "rrsisd_expressions.jsonl", None)))[::8]
    assert set(idle_words(texts)) <= HARMLESS
