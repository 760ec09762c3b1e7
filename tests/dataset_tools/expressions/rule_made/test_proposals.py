from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.relations import LabelledBox, choose
from dataset_tools.expressions.rule_made.proposals import GENERATOR, Proposal, propose, propose_for_boxes
from dataset_tools.geometry import Box
from dataset_tools.synthetic import draw_scene

SIZE = (600, 800)


def disk(x: int, y: int, radius: int) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def texts(proposals: list[Proposal], *targets: int) -> set[str]:
    return {p.expression for p in proposals if p.targets == targets}


def test_a_tank_farm_is_described_by_all_means() -> None:
    image = np.full((*SIZE, 3), (90, 130, 80), np.uint8)
    masks = [disk(80, 120, 40), disk(260, 130, 60), disk(680, 120, 30), disk(690, 480, 50)]
    for mask, color in zip(masks, [(240, 240, 240), (240, 240, 240), (120, 75, 40), (30, 60, 170)], strict=True):
        image[mask] = color
    labels = ["storage_tank", "Storage Tank", "oil tank", "ship"]
    proposals = propose(masks, labels, image, per_object=50)
    assert "the leftmost storage tank" in texts(proposals, 0)
    assert "the largest of the storage tanks" in texts(proposals, 1)
    assert "the second tank from the left" in texts(proposals, 1)
    assert {"the brown tank", "the tank above the ship", "the storage tank nearest to the ship"} <= texts(proposals, 2)
    assert {"the ship", "the vessel in the lower right corner of the image"} <= texts(proposals, 3)
    assert "all the storage tanks" in texts(proposals, 0, 1, 2)
    assert {p.kind for p in proposals} >= {"single", "color", "size", "region", "extreme", "order", "relation", "near"}
    assert {p.generator for p in proposals} == {GENERATOR}


def test_rows_headings_and_the_ground_are_put_into_words() -> None:
    image = np.full((*SIZE, 3), (150, 150, 150), np.uint8)
    image[400:] = (80, 140, 70)
    upper = [disk(x, 100, 25) for x in (100, 220, 340, 460)]
    lower = [disk(x, 250, 25) for x in (100, 220, 340)]
    ships = [np.zeros(SIZE, bool) for _ in range(2)]
    ships[0][60:260, 600:640] = ships[1][300:340, 520:720] = True
    fields = [np.zeros(SIZE, bool) for _ in range(2)]
    fields[0][480:540, 100:180] = fields[1][300:360, 300:380] = True
    masks = [*upper, *lower, *ships, *fields]
    labels = ["tank"] * 7 + ["ship"] * 2 + ["tennis court"] * 2
    proposals = propose(masks, labels, image, per_object=60)
    assert "the second storage tank from the left in the upper row" in texts(proposals, 1)
    assert "in the bottom row, the right tank" in texts(proposals, 6)
    assert "the vertical ship" in texts(proposals, 7)
    assert "the ship lying east to west" in texts(proposals, 8)
    assert "the tennis court on the grass" in texts(proposals, 9)
    assert not [p for p in propose(masks, labels, per_object=60) if p.kind in ("shape", "surface")], "not seen"


def test_nothing_is_said_of_what_cannot_be_told_apart_or_named() -> None:
    twins = [disk(300, 300, 30), disk(306, 302, 30)]
    assert [p.kind for p in propose(twins, ["ship", "ship"]) if p.kind != "all"] == []
    assert propose([disk(300, 300, 30)], ["lighthouse"]) == []
    assert propose([np.zeros(SIZE, bool)], ["ship"]) == []
    assert propose([], []) == []


def test_targets_count_the_objects_that_were_given() -> None:
    masks = [np.zeros(SIZE, bool), disk(100, 100, 20), disk(500, 300, 40), disk(700, 500, 30)]
    proposals = propose(masks, ["ship", "unheard of", "ship", "bridge"])
    assert {p.targets for p in proposals} == {(2,), (3,)}


def test_colors_need_the_image() -> None:
    masks = [disk(100, 100, 30), disk(600, 300, 30)]
    image = np.full((*SIZE, 3), 60, np.uint8)
    image[masks[0]] = (220, 30, 30)
    assert "the red ship" in texts(propose(masks, ["ship"] * 2, image, per_object=50), 0)
    assert not [p for p in propose(masks, ["ship"] * 2, per_object=50) if p.kind == "color"]


def test_malformed_input_is_named() -> None:
    with pytest.raises(ValueError, match="1 masks and 2 labels"):
        propose([disk(9, 9, 3)], ["ship", "ship"])
    with pytest.raises(ValueError, match="one size"):
        propose([np.ones((4, 4), bool), np.ones((5, 4), bool)], ["ship", "ship"])


boxes = st.lists(
    st.builds(
        lambda x, y, w, h, kind: LabelledBox(Box(x, y, x + w, y + h), kind),
        st.integers(0, 700),
        st.integers(0, 500),
        st.integers(8, 100),
        st.integers(8, 100),
        st.sampled_from(["ship", "storagetank", "bridge"]),
    ),
    max_size=9,
)


@settings(max_examples=40)
@given(boxes, st.integers(0, 5), st.integers(1, 6))
def test_every_proposal_leads_back_to_its_objects(objects: list[LabelledBox], seed: int, per_object: int) -> None:
    proposals = propose_for_boxes(objects, SIZE, seed=seed, per_object=per_object)
    assert proposals == propose_for_boxes(objects, SIZE, seed=seed, per_object=per_object)
    said = [p.expression for p in proposals]
    assert len(said) == len(set(said))
    for proposal in proposals:
        choice = choose(parse(proposal.expression), objects, SIZE)
        assert choice.code is None
        assert set(choice.indices) == set(proposal.targets)
        assert len(proposal.expression.split()) <= 16
    counts = Counter(p.targets[0] for p in proposals if p.kind != "all")
    assert all(count <= per_object for count in counts.values())


def test_most_objects_of_drawn_scenes_get_several_kinds_of_expression() -> None:
    scenes = [draw_scene(seed) for seed in range(6)]
    kinds: list[set[str]] = []
    for scene in scenes:
        masks, labels = [item.mask for item in scene.objects], [item.category for item in scene.objects]
        proposals = propose(masks, labels, scene.image, seed=1)
        kinds += [{p.kind for p in proposals if p.targets == (i,)} for i in range(len(labels))]
    assert sum(len(k) >= 2 for k in kinds) >= 0.6 * len(kinds)


def test_the_seed_varies_the_wording() -> None:
    masks, labels = [disk(100, 100, 30), disk(600, 300, 50)], ["airplane", "airplane"]
    wordings = [tuple(p.expression for p in propose(masks, labels, seed=seed)) for seed in range(4)]
    assert len(set(wordings)) > 1
