"""Parser and relation program on real scenes, with ground-truth boxes in the place of a perfect detector."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dataset_tools.categories import canonical
from dataset_tools.expression_parser import parse
from dataset_tools.formats.coco_jsonl import CocoJsonl, Expression, read
from dataset_tools.geometry import Box
from dataset_tools.relations import LabelledBox, choose

Candidates = Mapping[str, Sequence[tuple[int, LabelledBox]]]


@pytest.fixture(scope="module")
def nwpu(shared_data: Path) -> CocoJsonl:
    return read(shared_data / "nwpu_vhr10")


def true_boxes(data: CocoJsonl) -> dict[str, list[tuple[int, LabelledBox]]]:
    return {
        image.file_name: [(a.id, LabelledBox(a.box, canonical(a.category) or "")) for a in image.annotations]
        for image in data.images
    }


def right(data: CocoJsonl, row: Expression, candidates: Candidates) -> bool:
    image = data.image(row.image)
    ids = [ann_id for ann_id, _ in candidates[row.image]]
    choice = choose(parse(row.expression), [box for _, box in candidates[row.image]], (image.height, image.width))
    if row.kind == "absent":
        return choice.code == "absent"
    return choice.code is None and {ids[i] for i in choice.indices} == set(row.ann_ids)


def share(data: CocoJsonl, candidates: Candidates, kinds: str) -> float:
    rows = [row for row in data.expressions if kind_group(row) == kinds]
    return sum(right(data, row, candidates) for row in rows) / len(rows)


def kind_group(row: Expression) -> str:
    return row.kind if row.kind in ("all", "absent") else "one"


def test_every_expression_parses_to_its_category_and_kind(nwpu: CocoJsonl) -> None:
    for row in nwpu.expressions:
        query = parse(row.expression)
        assert query.category == canonical(row.category), row
        assert query.is_all == (row.kind == "all"), row
        assert not query.unknown_words, row


@pytest.mark.parametrize(("kinds", "floor"), [("one", 0.97), ("all", 0.99), ("absent", 0.99)])
def test_picks_the_right_object_among_true_boxes(nwpu: CocoJsonl, kinds: str, floor: float) -> None:
    assert share(nwpu, true_boxes(nwpu), kinds) >= floor


def test_degrades_gracefully_on_a_poor_detector(nwpu: CocoJsonl) -> None:
    """A fifth of the boxes missing, as many false ones, borders off by up to 10 %: what is left is mostly found."""
    rng = random.Random(0)
    noisy: dict[str, list[tuple[int, LabelledBox]]] = {}
    for name, boxes in true_boxes(nwpu).items():
        image = nwpu.image(name)
        found = noisy[name] = []
        for ann_id, true in boxes:
            if rng.random() >= 0.2:
                box, j = true.box, [rng.uniform(-0.1, 0.1) for _ in range(4)]
                moved = Box(
                    box.x0 + j[0] * box.width,
                    box.y0 + j[1] * box.height,
                    box.x1 + j[2] * box.width,
                    box.y1 + j[3] * box.height,
                )
                found.append((ann_id, LabelledBox(moved, true.category, rng.uniform(0.5, 1.0))))
            if rng.random() < 0.2:
                x, y = rng.uniform(0, image.width - true.box.width), rng.uniform(0, image.height - true.box.height)
                false = Box(x, y, x + true.box.width, y + true.box.height)
                found.append((-1, LabelledBox(false, true.category, rng.uniform(0.1, 0.5))))
    rows = [
        row
        for row in nwpu.expressions
        if kind_group(row) == "one" and row.ann_ids[0] in {ann_id for ann_id, _ in noisy[row.image]}
    ]
    assert sum(right(nwpu, row, noisy) for row in rows) / len(rows) >= 0.92
