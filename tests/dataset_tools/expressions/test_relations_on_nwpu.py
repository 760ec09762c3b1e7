"""Parser and relation program on real scenes, with ground-truth boxes in the place of a perfect detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.relation_program import PERFECT, POOR, candidates, shares
from dataset_tools.categories import category_name
from dataset_tools.expressions.parser import parse
from dataset_tools.labelled import LabelledImage, questions, read


@pytest.fixture(scope="module")
def nwpu(shared_data: Path) -> list[LabelledImage]:
    return read(shared_data / "nwpu_vhr10")


def test_every_expression_parses_to_its_category_and_kind(nwpu: list[LabelledImage]) -> None:
    for row in questions(nwpu):
        query = parse(row.expression.text)
        assert query.category == category_name(row.label), row
        assert query.is_all == (row.kind == "all"), row
        # "on the left" is a place to the parser, whatever the one who wrote it compared.
        assert query.kind == row.kind or row.kind == "absent" or (row.kind, query.kind) == ("extreme", "region"), row
        assert not query.unknown_words, row


def test_picks_the_right_objects_among_true_boxes(nwpu: list[LabelledImage]) -> None:
    found = shares(nwpu, candidates(nwpu, PERFECT))
    for group, floor in {"one object": 0.97, "all": 0.99, "absent": 0.99}.items():
        right, count = found[group]
        assert right / count >= floor, group


def test_degrades_gracefully_on_a_poor_detector(nwpu: list[LabelledImage]) -> None:
    """A fifth of the boxes missing, as many false ones, borders off by up to 10 %: what is left is mostly found."""
    right, count = shares(nwpu, candidates(nwpu, POOR))["one object, detected"]
    assert right / count >= 0.92
