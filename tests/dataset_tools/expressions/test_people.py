"""Sentences as people write them, over small hand-made layouts: groups, looks, exclusions, words nobody knows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dataset_tools.expressions.appearance import Look, View, look_at, view_of
from dataset_tools.expressions.candidates import Candidates
from dataset_tools.expressions.explanation import explain
from dataset_tools.expressions.groups import find_groups
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Color, Extreme, Group, Part, Place, Query, Relation, Size, State
from dataset_tools.expressions.relations import LabelledBox, choose
from dataset_tools.expressions.spatial_scores import places
from dataset_tools.expressions.spelling import corrected
from dataset_tools.geometry import Box

SIZE = (600, 800)


def at(x: float, y: float, category: str, width: float = 40, height: float = 40) -> LabelledBox:
    """A box by its middle."""
    return LabelledBox(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2), category)


# Two rows of courts, a pair at the right, one by itself at the bottom.
COURTS = {
    **{f"u{i}": at(100 + 60 * i, 100, "tenniscourt", 50, 80) for i in range(4)},
    **{f"l{i}": at(100 + 60 * i, 320, "tenniscourt", 50, 80) for i in range(3)},
    "p1": at(600, 200, "tenniscourt", 50, 80),
    "p2": at(660, 200, "tenniscourt", 50, 80),
    "alone": at(400, 540, "tenniscourt", 50, 80),
}
# A tilted row of planes, two more at the upper right, one of them cut by the border.
PLANES = {
    **{f"t{i}": at(80 + 70 * i, 300 + 40 * i, "airplane") for i in range(5)},
    "n1": at(600, 60, "airplane", 60, 60),
    "n2": at(775, 80, "airplane", 50, 50),
    "truck": at(640, 120, "vehicle", 20, 12),
}


@pytest.mark.parametrize(
    ("layout", "expression", "expected"),
    [
        (COURTS, "second court from the left in the upper row", "u1"),
        (COURTS, "lower row, rightmost tennis court", "l2"),
        (COURTS, "the left one of the pair of tennis courts", "p1"),
        (COURTS, "in the row of three tennis courts, the middle one", "l1"),
        (COURTS, "the lone tennis court", "alone"),
        (COURTS, "of the two tennis courts at the right, the western one", "p1"),
        (COURTS, "last tennis court on the right in the top row of four", "u3"),
        (PLANES, "the third plane down in the row of five", "t2"),
        (PLANES, "the plane cut off by the right edge", "n2"),
        (PLANES, "the plane in the top right, not the one cut off by the border", "n1"),
        (PLANES, "the plane with a truck next to it", "n1"),
        (PLANES, "the largest airplane except the one with the truck", "n2"),
        (PLANES, "the leftmsot plane", "t0"),
        (PLANES, "the plane in the NE corner", "n2"),
        (PLANES, "the lower plane on the right, I mean the one of the row", "t4"),
    ],
)
def test_what_people_write(layout: dict[str, LabelledBox], expression: str, expected: str) -> None:
    choice = choose(parse(expression), list(layout.values()), SIZE)
    names = list(layout)
    assert [names[i] for i in choice.indices] == [expected], (parse(expression).constraints, choice)
    assert choice.code is None


CUT = {
    "left": at(30, 580, "airplane"), "first": at(700, 580, "airplane"), "second": at(760, 580, "airplane"),
    "whole": at(400, 200, "airplane"),
}  # fmt: skip


def test_cut_off_at_a_corner_is_in_that_corner() -> None:
    choice = choose(parse("left one of the planes cut off at the bottom right"), list(CUT.values()), SIZE)
    assert [list(CUT)[i] for i in choice.indices] == ["first"], choice


def test_in_front_of_a_house_is_at_no_end_of_it() -> None:
    (relation,) = parse("car in front of the house").constraints
    assert isinstance(relation, Relation)
    assert relation.kind == "near"


def test_boxes_without_extent_are_no_error() -> None:
    points = [at(0, 0, "ship", 0, 0) for _ in range(5)]
    assert choose(parse("the larger of the two ships on the left"), points, SIZE).code is not None


def test_a_row_may_be_tilted() -> None:
    scene = Candidates.of(list(PLANES.values()), SIZE)
    best = find_groups(scene.boxes, scene.of_category("airplane") > 0, "row", 5)[0]
    assert set(best.members) == {0, 1, 2, 3, 4}


def test_constraints_of_a_group_are_apart_from_those_of_its_member() -> None:
    query = parse("the second ship from the left in the lower row")
    assert set(query.constraints) == {
        Extreme((-1, None), 2),
        Group("row", place=(Place((None, 1), of_image=False),)),
    }


@pytest.mark.parametrize(
    ("expression", "constraint"),
    [
        ("the ship with a red deck", Part("red", "deck")),
        ("the white-topped car", Part("white", "topped")),
        ("the ship cut by the left edge", State("cut", (-1, None))),
        ("an isolated storage tank", State("alone")),
        ("the harbor without boats", State("empty")),
    ],
)
def test_parts_and_states(expression: str, constraint: object) -> None:
    assert constraint in parse(expression).constraints


@pytest.mark.parametrize(
    ("expression", "category"),
    [
        ("the frustum of a cone chimney", "chimney"),
        ("the ship's harbor", "harbor"),
        ("the powerboat at the left", "ship"),
        ("a lorry", "vehicle"),
        ("the pontoon at the top", "harbor"),
        ("the boat shed", "building"),
        ("the hardcourt", "tenniscourt"),
        ("the paler, sandy baseball diamond", "baseballfield"),
    ],
)
def test_nouns(expression: str, category: str) -> None:
    assert parse(expression).category == category


def test_an_unread_word_decides_nothing_in_silence() -> None:
    choice = choose(parse("the tennis court with faded lines"), list(COURTS.values()), SIZE)
    assert choice.code == "unknown-word"
    assert "faded" in choice.message
    assert 0 < len(choice.indices) <= 4
    passed = choose(parse("the faded leftmost tennis court in the lower row"), list(COURTS.values()), SIZE)
    assert passed.code is None
    assert passed.unread == ("faded",)
    plain = choose(parse("the leftmost tennis court in the lower row"), list(COURTS.values()), SIZE)
    assert passed.indices == plain.indices
    assert passed.chance < plain.chance


def test_numbers_are_checked() -> None:
    assert choose(parse("all six planes"), [*PLANES.values()][:4], SIZE).code == "ambiguous"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("rightmsot", "rightmost"), ("botom", "bottom"), ("secnd", "second"), ("largset", "largest"), ("ship", "ship")],
)
def test_slips(typed: str, meant: str) -> None:
    assert corrected(typed) == meant


def _picture() -> npt.NDArray[np.uint8]:
    """Gray ground with a green field at the left and a blue one at the right."""
    image = np.full((600, 800, 3), 130, np.uint8)
    image[:, :250] = (80, 150, 70)
    image[:, 600:] = (60, 110, 190)
    return image


def test_surroundings_are_read_from_the_image() -> None:
    boxes = [at(120, 300, "vehicle"), at(420, 300, "vehicle"), at(480, 100, "vehicle")]
    view = view_of(_picture())
    assert choose(parse("the car on the grass"), boxes, SIZE, view).indices == (0,)
    blind = choose(parse("the car on the grass"), boxes, SIZE)
    assert blind.code == "unknown-word"
    assert blind.unread == ("grass",)


def test_colours_are_judged_beside_those_of_the_peers() -> None:
    image = _picture()
    image[280:320, 400:440] = (84, 80, 96)  # hardly purple
    image[80:120, 460:500] = (82, 86, 82)
    boxes = [at(420, 300, "vehicle"), at(480, 100, "vehicle")]
    seen = [LabelledBox(b.box, b.category, color=(84, 84, 84), look=look_at(image, b.box)) for b in boxes]
    assert choose(parse("the purple car"), seen, SIZE).indices[0] == 0


def test_a_colour_is_in_an_object_by_degrees() -> None:
    image = _picture()
    image[280:320, 400:440] = (112, 96, 88)  # grey, with a little brown in it
    image[80:120, 460:500] = (100, 100, 102)
    boxes = [at(480, 100, "vehicle"), at(420, 300, "vehicle")]
    seen = [LabelledBox(b.box, b.category, color=(104, 98, 96), look=look_at(image, b.box)) for b in boxes]
    shares = [(look.share("brown"), look.degree("brown")) for b in seen if (look := b.look)]
    assert shares[0][0] == shares[1][0] == 0.0
    assert shares[1][1] > 1.5 * shares[0][1]
    choice = choose(parse("the brown car"), seen, SIZE)
    assert (choice.code, choice.indices) == (None, (1,))


def test_a_look_measures_outline_and_palette() -> None:
    image = _picture()
    mask = np.zeros((600, 800), bool)
    mask[100:110, 300:400] = True
    look = look_at(image, Box.of_mask(mask), mask)
    assert isinstance(look, Look)
    assert look.outline is not None
    assert look.outline.elongation > 5
    assert look.share("gray") > 0.9
    assert isinstance(view_of(image), View)


def test_an_explanation_names_what_was_read_and_how_each_fared() -> None:
    query = parse("the faded second court from the left in the upper row")
    boxes = list(COURTS.values())
    found = explain(query, choose(query, boxes, SIZE), boxes, SIZE)
    text = "\n".join(found.lines)
    assert "row" in text
    assert "passed over: faded" in text
    assert "* candidate 1" in text
    assert next(iter(found.boxes)) == 1


def test_a_query_knows_what_it_needs_of_the_image() -> None:
    assert parse("the ship with a red deck").mentions_color
    assert parse("the L-shaped harbor").mentions_looks
    assert not parse("the leftmost ship").mentions_looks
    assert isinstance(parse("the ship by the largest bridge").parts[0], Query)


@pytest.mark.parametrize(
    ("expression", "unread"),
    [
        ("the striped tennis court", "striped"),
        ("boat at the dock's outer end", "outer"),
        ("the boat with the faded reddish deck", "faded"),
        ("the building with a shiny roof by the trees", "shiny"),
        ("the court on the right end of the three, with an extra hoop", "hoop"),
        ("the ship near the harbor with the blinking beacon", "beacon"),
    ],
)
def test_what_cannot_be_read_is_named_wherever_it_stands(expression: str, unread: str) -> None:
    assert unread in " ".join(parse(expression).unread).split()


def test_little_is_a_size_but_in_comparisons() -> None:
    assert any(isinstance(c, Size) for c in parse("the boat next to a little pier").parts[0].constraints)
    assert not any(isinstance(c, Size) for c in parse("the boat a little to the left").constraints)


def test_the_object_lies_where_its_part_is_said_to_lie() -> None:
    query = parse("the boat with a brown deck by the right edge")
    assert any(isinstance(c, Place | Extreme) and c.direction == (1, None) for c in query.constraints)


def test_an_object_named_after_an_unknown_landmark_is_what_is_asked_for() -> None:
    query = parse("find the winding kart track; the dark soccer field just to its right")
    assert query.category == "soccerfield"
    assert "track" in " ".join(query.unread)


def test_another_of_its_kind_beside_it_is_no_description_of_itself() -> None:
    query = parse("the red car with a white one beside it")
    assert [c.name for c in query.constraints if isinstance(c, Color)] == ["red"]
    assert query.relations[0].targets[0].category == "vehicle"


def test_parts_of_a_plane_stand_for_it() -> None:
    boxes = [at(100, 100, "airplane", 80, 80), at(160, 150, "vehicle", 12, 8), at(600, 500, "vehicle", 12, 8)]
    choice = choose(parse("the truck by the plane's tail"), boxes, SIZE)
    assert choice.indices == (1,)
    assert parse("the truck below the wing of the plane").target_categories == {"airplane"}


def test_a_stack_of_courts_is_no_chimney() -> None:
    assert parse("the court at the top of the stack of three").target_categories == frozenset()
    assert parse("the leftmost stack").category == "chimney"


def test_the_fifth_of_many_is_as_likely_as_one_by_one_counting_says() -> None:
    rng = np.random.default_rng(3)
    key, noise, presence = rng.normal(size=9), np.full(9, 0.3), rng.uniform(0.2, 1.0, 9)
    found = places(key, noise, presence, 9)
    before = 1 / (1 + np.exp(-(key[None] - key[:, None]) / 0.3)) * presence[None]
    for index in range(9):
        counts = np.array([1.0])
        for other in set(range(9)) - {index}:
            counts = np.convolve(counts, [1 - before[index, other], before[index, other]])
        np.testing.assert_allclose(found[index], counts, atol=1e-12)
