"""Expressions over small hand-made layouts: what a reader of the sentence would point at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.relations import Choice, LabelledBox, choose
from dataset_tools.geometry import Box

SIZE = (600, 800)
Layout = dict[str, LabelledBox]


def at(
    x: float, y: float, category: str, width: float = 40, height: float = 40, color: str | None = None
) -> LabelledBox:
    """A box by its middle."""
    return LabelledBox(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2), category, color=color)


# Four planes in the quarters and one in the middle, sizes growing from a to e.
APRON: Layout = {
    "a": at(120, 100, "airplane", 30, 30),
    "b": at(680, 130, "airplane", 40, 40),
    "c": at(400, 290, "airplane", 52, 52),
    "d": at(150, 500, "airplane", 66, 66),
    "e": at(640, 480, "airplane", 84, 84),
    "car": at(560, 60, "vehicle", 16, 10),
    "hall": at(300, 120, "building", 120, 80),
}
# Five ships side by side, a harbor over the left two, a bridge at the right, another one at the bottom.
PORT: Layout = {
    "s1": at(100, 300, "ship", 40, 40, "white"),
    "s2": at(220, 305, "ship", 50, 50, "red"),
    "s3": at(360, 298, "ship", 60, 60, "white"),
    "s4": at(520, 302, "ship", 45, 45, "blue"),
    "s5": at(660, 290, "ship", 70, 70, "gray"),
    "pier": at(160, 200, "harbor", 240, 90),
    "east": at(765, 290, "bridge", 40, 220),
    "south": at(400, 560, "bridge", 300, 30),
}
# Courts and fields of a school: the tennis courts stand in a column between two basketball courts.
SCHOOL: Layout = {
    "t1": at(400, 100, "tenniscourt", 40, 70),
    "t2": at(400, 220, "tenniscourt", 40, 70),
    "t3": at(400, 340, "tenniscourt", 40, 70),
    "bb_left": at(200, 220, "basketballcourt", 70, 100),
    "bb_right": at(600, 230, "basketballcourt", 50, 80),
    "track": at(230, 470, "groundtrackfield", 300, 180),
    "diamond": at(620, 470, "baseballfield", 110, 110),
    "diamond2": at(720, 80, "baseballfield", 60, 60),
    "on_track": at(240, 470, "vehicle", 14, 10),
    "by_diamond": at(540, 420, "vehicle", 16, 10),
    "alone": at(60, 40, "vehicle", 15, 10),
}
# Tanks in two rows, one chimney, two windmills.
PLANT: Layout = {
    "n1": at(150, 150, "storagetank", 60, 60, "white"),
    "n2": at(300, 150, "storagetank", 90, 90, "white"),
    "n3": at(450, 150, "storagetank", 30, 30, "brown"),
    "m1": at(150, 330, "storagetank", 50, 50, "green"),
    "m2": at(300, 330, "storagetank", 120, 120, "gray"),
    "stack": at(600, 160, "chimney", 30, 60),
    "mill_w": at(120, 520, "windmill", 30, 60),
    "mill_e": at(700, 540, "windmill", 40, 80),
    "dam": at(420, 560, "dam", 240, 40),
}

CASES: list[tuple[Layout, str, str]] = [
    # One object of its kind, by any of its names.
    (PLANT, "the chimney", "stack"),
    (PLANT, "smokestack", "stack"),
    (PLANT, "a weir at the lower edge", "dam"),
    (SCHOOL, "athletics track", "track"),
    (SCHOOL, "please outline the running track", "track"),
    (APRON, "the automobile", "car"),
    (APRON, "the roof", "hall"),
    (PORT, "where is the jetty?", "pier"),
    # Extremes.
    (APRON, "left-most plane", "a"),
    (APRON, "the plane furthest to the right", "b"),
    (APRON, "the uppermost aircraft", "a"),
    (APRON, "lowest jet", "d"),
    (APRON, "the airplane nearest to the top-left corner", "a"),
    (APRON, "the aeroplane closest to the lower right corner of the picture", "e"),
    (APRON, "the plane closest to the bottom edge", "d"),
    (APRON, "the northernmost plane", "a"),
    (APRON, "the easternmost of the planes", "b"),
    (APRON, "the plane that lies farthest south", "d"),
    (APRON, "plane at the very top", "a"),
    (APRON, "the plane closest to the centre", "c"),
    (PORT, "the rightmost vessel", "s5"),
    (PORT, "the boat on the far left", "s1"),
    (PORT, "the most western boat", "s1"),
    # Parts of the image.
    (APRON, "the plane in the upper left part of the image", "a"),
    (APRON, "an airplane in the top right corner", "b"),
    (APRON, "the plane in the lower-left", "d"),
    (APRON, "bottom right plane", "e"),
    (APRON, "the aircraft in the middle of the image", "c"),
    (APRON, "the plane in the centre", "c"),
    (APRON, "plane, southwest", "d"),
    (APRON, "the airplane in the north-east of the scene", "b"),
    (APRON, "in the lower right of the picture there is a plane", "e"),
    (APRON, "on the image's lower left, the plane", "d"),
    (PLANT, "the windmill in the right half of the photo", "mill_e"),
    # Sides among the candidates.
    (PLANT, "the windmill on the left", "mill_w"),
    (PLANT, "the right wind turbine", "mill_e"),
    (SCHOOL, "the lower baseball diamond", "diamond"),
    (SCHOOL, "the upper one of the two baseball fields", "diamond2"),
    (SCHOOL, "the top tennis court", "t1"),
    (SCHOOL, "the tennis court at the bottom", "t3"),
    (SCHOOL, "the middle tennis court", "t2"),
    (SCHOOL, "tennis court in the middle of the three tennis courts", "t2"),
    (SCHOOL, "the basketball court on the left-hand side", "bb_left"),
    (SCHOOL, "the left of the two basketball courts", "bb_left"),
    (PORT, "the bridge on the right", "east"),
    (PORT, "the bridge to the south", "south"),
    # Order.
    (PORT, "the second ship from the left", "s2"),
    (PORT, "second from the right ship", "s4"),
    (PORT, "the 4th ship from left to right", "s4"),
    (PORT, "the third boat counting from the right", "s3"),
    (PORT, "first ship from the left", "s1"),
    (PORT, "the last ship on the right", "s5"),
    (SCHOOL, "the second tennis court from the top", "t2"),
    (PLANT, "the second largest storage tank", "n2"),
    (PLANT, "third largest oil tank", "n1"),
    (PLANT, "the second smallest of the tanks", "m1"),
    # Size.
    (APRON, "the biggest plane", "e"),
    (APRON, "the tiniest aircraft", "a"),
    (APRON, "the smallest of all the airplanes", "a"),
    (APRON, "the plane that is largest in size", "e"),
    (PLANT, "the tiniest of the storage tanks", "n3"),
    (PLANT, "the huge tank", "m2"),
    (PLANT, "the larger windmill", "mill_e"),
    (PLANT, "the smaller of the two wind turbines", "mill_w"),
    (PLANT, "the windmill that is smaller than the other one", "mill_w"),
    (SCHOOL, "the bigger baseball field", "diamond"),
    (SCHOOL, "a small baseball diamond", "diamond2"),
    (SCHOOL, "the larger of the basketball courts", "bb_left"),
    (PORT, "the longest bridge", "south"),
    (PORT, "the larger of the two ships on the left", "s2"),
    # Colour.
    (PLANT, "the green tank", "m1"),
    (PLANT, "a brown oil tank", "n3"),
    (PLANT, "the grey storage tank", "m2"),
    (PORT, "the red vessel", "s2"),
    (PORT, "a boat that is blue", "s4"),
    (PORT, "the ship with a red deck", "s2"),
    (PORT, "the leftmost white ship", "s1"),
    (PORT, "the right white ship", "s3"),
    (PLANT, "the largest white tank", "n2"),
    (PLANT, "the white tank, which is the smaller one", "n1"),
    # Relations in a direction.
    (SCHOOL, "the basketball court to the left of the tennis courts", "bb_left"),
    (SCHOOL, "the basketball court right of the tennis courts", "bb_right"),
    (SCHOOL, "the basketball court that is east of the tennis courts", "bb_right"),
    (SCHOOL, "the basketball court on the left side of the tennis court in the middle", "bb_left"),
    (SCHOOL, "left of the tennis courts there is a basketball court", "bb_left"),
    (SCHOOL, "a car that is northeast of the ground track field", "by_diamond"),
    (SCHOOL, "the baseball diamond to the right of the track", "diamond"),
    (SCHOOL, "the baseball field is on the upper right of the tennis courts", "diamond2"),
    (PLANT, "a storage tank is on the lower left of the storage tank on the right", "m2"),
    (PLANT, "the tank directly below the largest white tank", "m2"),
    (PLANT, "the tank left of the largest tank", "m1"),
    (PLANT, "the tank above the gray tank", "n2"),
    (PLANT, "the oil tank nearest to the chimney on its left", "n3"),
    (PLANT, "windmill to the west of the dam", "mill_w"),
    (PLANT, "the wind turbine that is on the right of the dam", "mill_e"),
    (PORT, "the ship right below the harbor, on the left of the red ship", "s1"),
    (PORT, "the ship to the left of the second ship from the left", "s1"),
    (APRON, "the plane above the largest plane and right of the building", "b"),
    (SCHOOL, "a tennis court with a basketball court to its left and right", "t2"),
    (PLANT, "the tank with a chimney on its right", "n3"),
    # Nearness.
    (PLANT, "the storage tank closest to the chimney", "n3"),
    (PLANT, "the nearest tank to the chimney", "n3"),
    (PLANT, "the tank farthest from the chimney", "m1"),
    (SCHOOL, "the car next to the baseball diamond", "by_diamond"),
    (SCHOOL, "the vehicle beside the lower baseball field", "by_diamond"),
    (SCHOOL, "the vehicle furthest away from the diamonds", "alone"),
    (SCHOOL, "the vehicle that is far from the track", "alone"),
    (PORT, "the boat by the eastern bridge", "s5"),
    (PORT, "the ship closest to the bridge on the right", "s5"),
    (APRON, "the plane near the house", "a"),
    (SCHOOL, "the tennis court nearest the ground track field", "t3"),
    (PORT, "the second closest ship to the bridge on the right", "s4"),
    (SCHOOL, "the car next to the field that is the closest to the right edge", "by_diamond"),
    # Between, on, in.
    (PORT, "the ship between the red ship and the blue ship", "s3"),
    (SCHOOL, "the tennis court between the two basketball courts", "t2"),
    (SCHOOL, "the tennis court that lies between the other tennis courts", "t2"),
    (SCHOOL, "the car on the running track", "on_track"),
    (SCHOOL, "a vehicle inside the ground track field", "on_track"),
    (SCHOOL, "the track with a car on it", "track"),
    # Negation.
    (PLANT, "the windmill that is not on the left", "mill_e"),
    (SCHOOL, "the baseball field, not the one at the bottom", "diamond2"),
    (PLANT, "the windmill that is not the largest", "mill_w"),
    # Conditions together; words in another order.
    (PLANT, "the largest tank in the upper row", "n2"),
    (PORT, "of the two bridges, the lower one", "south"),
    (PORT, "there are two bridges, the right one", "east"),
    (PORT, "among the ships the one closest to the right edge", "s5"),
    (PORT, "ship, red", "s2"),
    (PORT, "the vertical bridge", "east"),
    (PORT, "the ship in the right third of the image", "s5"),
    (PORT, "the vessel nearest the image's left edge", "s1"),
    (PORT, "ship #2 from the right", "s4"),
    (SCHOOL, "the baseball field that lies lower than the other", "diamond"),
    (PORT, "the biggest white ship on the left half of the image", "s3"),
    (PORT, "the small boat at the left", "s1"),
    # Several.
    (APRON, "all the planes", "a b c d e"),
    (APRON, "every aircraft", "a b c d e"),
    (APRON, "planes", "a b c d e"),
    (APRON, "each of the airplanes in the lower half of the image", "d e"),
    (APRON, "both planes on the left", "a d"),
    (APRON, "the two planes at the top", "a b"),
    (APRON, "the three largest planes", "c d e"),
    (PORT, "all ships except the red one", "s1 s3 s4 s5"),
    (PORT, "every white vessel", "s1 s3"),
    (PORT, "every ship but the largest", "s1 s2 s3 s4"),
    (APRON, "all planes other than the leftmost", "b c d e"),
    (PORT, "the pair of bridges", "east south"),
    (PORT, "the two leftmost ships", "s1 s2"),
    (PORT, "all boats to the right of the red boat", "s3 s4 s5"),
    (PORT, "both bridges", "east south"),
    (SCHOOL, "all of the tennis courts", "t1 t2 t3"),
    (SCHOOL, "the pair of basketball courts", "bb_left bb_right"),
    (SCHOOL, "all cars that are not on the track", "alone by_diamond"),
    (PLANT, "the wind turbines", "mill_e mill_w"),
    (PLANT, "two windmills", "mill_e mill_w"),
    (PLANT, "all the storage tanks above the dam", "m1 m2 n1 n2 n3"),
    (APRON, "the plane farthest from the left edge", "b"),
    # As other datasets and other people put it.
    (APRON, "A airplane on the upper left", "a"),
    (APRON, "airplane located at the bottom-right", "e"),
    (APRON, "The plane at bottom left of the image", "d"),
    (APRON, "the plane that is positioned in the top-most left-hand corner", "a"),
    (APRON, "the airplane closest to the image center", "c"),
    (APRON, "the plane parked nearest to the building", "a"),
    (APRON, "the plane that is parked closest to the upper border of the image", "a"),
    (APRON, "The largest airplane in the image", "e"),
    (APRON, "the second biggest airplane", "d"),
    (APRON, "the aircraft of the smallest size", "a"),
    (APRON, "the lower right aircraft", "e"),
    (APRON, "an aircraft in the southeast corner", "e"),
    (APRON, "the plane south-west of the central plane", "d"),
    (APRON, "an airplane is on the lower left of the airplane in the middle", "d"),
    (APRON, "The airplane is on the right of the building", "b"),
    (APRON, "plane on the extreme right", "b"),
    (APRON, "the plane which is the most to the left", "a"),
    (APRON, "the plane which is furthest from the building", "e"),
    (APRON, "all airplanes left of the middle one", "a d"),
    (APRON, "the two airplanes at the bottom of the picture", "d e"),
    (APRON, "the medium-sized plane in the center", "c"),
    (APRON, "jet closest to the car", "b"),
    (APRON, "airplane that has the biggest wingspan", "e"),
    (PORT, "The ship docked at the far right", "s5"),
    (PORT, "the boat immediately left of the blue boat", "s3"),
    (PORT, "the boat directly to the right of the red ship", "s3"),
    (PORT, "the ship adjacent to the east bridge", "s5"),
    (PORT, "the white ship on the left", "s1"),
    (PORT, "the white ship further to the right", "s3"),
    (PORT, "the smaller white ship", "s1"),
    (PORT, "the ship sandwiched between the red and the blue ship", "s3"),
    (PORT, "the ship in between the red one and the blue one", "s3"),
    (PORT, "the middle ship", "s3"),
    (PORT, "ship in the middle of the row", "s3"),
    (PORT, "the penultimate ship from the left", "s4"),
    (PORT, "the second-to-last ship from the left", "s4"),
    (PORT, "the next to last ship from the left", "s4"),
    (PORT, "the ship on the right of the blue ship", "s5"),
    (PORT, "a bridge that is located below the ships", "south"),
    (PORT, "the bridge lying at the bottom of the scene", "south"),
    (PORT, "the bridge running horizontally", "south"),
    (PORT, "the horizontal bridge", "south"),
    (PORT, "the bridge east of all ships", "east"),
    (PORT, "the dock above the ships", "pier"),
    (PORT, "the two ships under the harbor", "s1 s2"),
    (PORT, "all ships on the right half of the image", "s4 s5"),
    (PORT, "ships that are white", "s1 s3"),
    (PORT, "every boat left of the white boat in the middle", "s1 s2"),
    (PORT, "every ship that is not white", "s2 s4 s5"),
    (PORT, "non-white ships", "s2 s4 s5"),
    (PORT, "all five ships", "s1 s2 s3 s4 s5"),
    (PORT, "the leftmost three ships", "s1 s2 s3"),
    (PORT, "the last two ships on the right", "s4 s5"),
    (PORT, "the first two ships from the left", "s1 s2"),
    (PORT, "the largest two ships", "s3 s5"),
    (PORT, "ships", "s1 s2 s3 s4 s5"),
    (PORT, "Segment the red ship.", "s2"),
    (PORT, "Can you find the ship that's closest to the right-hand bridge?", "s5"),
    (PORT, "Which ship is the biggest?", "s5"),
    (PORT, "the biggest of the ships", "s5"),
    (PORT, "I am looking for the smallest vessel in the harbor area", "s1"),
    (PORT, "the ship with the reddish hull", "s2"),
    (PORT, "the vessel at the left-hand end of the line", "s1"),
    (PORT, "the outermost ship on the right", "s5"),
    (PORT, "the ship nearest the lower bridge", "s3"),
    (PORT, "the ship that is closest to the bridge at the bottom", "s3"),
    (PORT, "the ship closer to the right bridge than the blue ship", "s5"),
    (PORT, "the blue boat to the left of the bridge", "s4"),
    (SCHOOL, "the northernmost tennis court", "t1"),
    (SCHOOL, "the tennis court in the center", "t2"),
    (SCHOOL, "the central tennis court", "t2"),
    (SCHOOL, "The ground track field on the lower left of the basketball court on the right", "track"),
    (SCHOOL, "A baseball field on the lower right of the tennis court at the bottom", "diamond"),
    (SCHOOL, "the bigger of the basketball courts", "bb_left"),
    (SCHOOL, "the vehicle in the top left corner", "alone"),
    (SCHOOL, "vehicle on the athletic track", "on_track"),
    (SCHOOL, "the car parked inside the running track", "on_track"),
    (SCHOOL, "the vehicle at the upper-left of the baseball diamond at the bottom", "by_diamond"),
    (SCHOOL, "the topmost car", "alone"),
    (SCHOOL, "the baseball field at top right", "diamond2"),
    (SCHOOL, "baseball diamonds", "diamond diamond2"),
    (SCHOOL, "the tennis court second from the top", "t2"),
    (SCHOOL, "the 2nd tennis court counted from the bottom", "t2"),
    (SCHOOL, "the tennis court furthest from the track", "t1"),
    (PLANT, "the tank of the greatest diameter", "m2"),
    (PLANT, "the greenish storage tank at left", "m1"),
    (PLANT, "the white tank on the right", "n2"),
    (PLANT, "tanks in the bottom row", "m1 m2"),
    (PLANT, "tanks in the upper row", "n1 n2 n3"),
    (PLANT, "all white tanks", "n1 n2"),
    (PLANT, "the wind turbine that is closest to the tanks", "mill_w"),
    (PLANT, "the windmill to the left of the dam", "mill_w"),
    (PLANT, "windmill on the lower right of the chimney", "mill_e"),
    (PLANT, "the taller windmill", "mill_e"),
    (PLANT, "the two smallest tanks", "m1 n3"),
    (PLANT, "every tank except the biggest one", "m1 n1 n2 n3"),
    (PLANT, "the tank beneath the big white tank", "m2"),
    (PLANT, "a tank which is neither white nor green, the smaller one", "n3"),
    (PLANT, "the tank that is not gray, white or green", "n3"),
    (PLANT, "the rightmost tank of the upper row", "n3"),
    (PLANT, "the left tank in the lower row", "m1"),
    (PLANT, "the tank at the end of the top row on the right", "n3"),
    # No answer.
    (APRON, "the ship", "absent"),
    (PORT, "every tennis court", "absent"),
    (PLANT, "the aircraft closest to the chimney", "absent"),
    (APRON, "the plane", "ambiguous"),
    (PORT, "a ship", "ambiguous"),
    (SCHOOL, "tennis court", "ambiguous"),
    (PORT, "two ships", "ambiguous"),
    (APRON, "the lighthouse left of the plane", "unknown-category"),
    (PORT, "the lighthouse near the harbor", "unknown-category"),
    (SCHOOL, "the car park", "unknown-category"),
    (PORT, "the left one", "unknown-category"),
    (PORT, "", "empty-expression"),
    (PORT, " \n\t ", "empty-expression"),
    (PORT, "?!...", "empty-expression"),
]


def outcome(layout: Layout, expression: str) -> tuple[str, Choice]:
    names = list(layout)
    choice = choose(parse(expression), list(layout.values()), SIZE)
    return choice.code or " ".join(sorted(names[i] for i in choice.indices)), choice


@pytest.mark.parametrize(("layout", "expression", "expected"), CASES, ids=[expression for _, expression, _ in CASES])
def test_picks_what_the_words_describe(layout: Layout, expression: str, expected: str) -> None:
    found, choice = outcome(layout, expression)
    assert found == expected, (parse(expression).constraints, choice.scores)


def test_a_noun_less_query_takes_the_only_category() -> None:
    tanks = {name: box for name, box in PLANT.items() if box.category == "storagetank"}
    assert outcome(tanks, "the largest one")[0] == "m2"


def test_messages_name_what_is_missing() -> None:
    assert "tennis court" in outcome(PORT, "the tennis court")[1].message
    assert "lighthouse" in outcome(PORT, "the lighthouse")[1].message
    assert "leftmost ship" in outcome(PORT, "the ship")[1].message


def test_what_the_words_describe_may_not_be_there_although_its_kind_is() -> None:
    assert outcome({"a": APRON["a"]}, "the plane in the lower right corner of the image")[0] == "absent"
    assert outcome({"s1": PORT["s1"], "s2": PORT["s2"]}, "the fifth ship from the left")[0] == "absent"


def test_relation_to_something_that_is_no_candidate_is_passed_over() -> None:
    assert outcome(PLANT, "the chimney near the river")[0] == "stack"
    found, choice = outcome(PORT, "the ship nearest to the lighthouse")
    assert found == "unknown-word"
    assert choice.unread == ("lighthouse",)
    assert "lighthouse" in choice.message
    assert len(choice.indices) == 4


def test_a_doubtful_detection_at_the_border_does_not_take_the_place_of_the_leftmost() -> None:
    doubtful = {**PORT, "shadow": LabelledBox(Box(2, 280, 40, 320), "ship", score=0.15)}
    assert outcome(doubtful, "the leftmost ship")[0] == "s1"
    certain = {**PORT, "moored": LabelledBox(Box(2, 280, 40, 320), "ship", score=0.9)}
    assert outcome(certain, "the leftmost ship")[0] == "moored"


def test_a_much_likelier_detection_settles_what_the_words_leave_open() -> None:
    strong = LabelledBox(Box(10, 10, 60, 60), "ship", score=0.9)
    weak = LabelledBox(Box(300, 300, 350, 350), "ship", score=0.3)
    assert choose(parse("the ship"), [weak, strong], SIZE).indices == (1,)
    choice = choose(parse("the ship"), [LabelledBox(weak.box, "ship", 0.88), strong], SIZE)
    assert choice.code == "ambiguous"
    assert choice.indices == (1, 0)


def test_many_alike_are_ambiguous_and_not_absent() -> None:
    cars = [LabelledBox(Box(20 * i, 0, 20 * i + 10, 10), "vehicle", 0.8) for i in range(40)]
    assert choose(parse("the largest car"), cars, SIZE).code == "ambiguous"
    bus = LabelledBox(Box(0, 100, 11, 111), "vehicle", 0.8)
    assert choose(parse("the largest car"), [*cars, bus], SIZE).indices == (40,)


def test_mask_area_counts_before_box_area() -> None:
    diagonal = LabelledBox(Box(0, 0, 200, 200), "bridge", area=6000)
    upright = LabelledBox(Box(300, 100, 400, 200), "bridge", area=9000)
    assert choose(parse("the largest bridge"), [diagonal, upright], SIZE).indices == (1,)


EXPRESSIONS = sorted({expression for _, expression, _ in CASES if expression.strip()})
boxes = st.tuples(
    st.floats(0, 800), st.floats(0, 600), st.floats(0, 300), st.floats(0, 300), st.sampled_from(["ship", "storagetank"])
)


@given(
    st.sampled_from(EXPRESSIONS).map(lambda text: text.replace("plane", "ship").replace("tank", "ship")),
    st.lists(st.tuples(boxes, st.floats(0, 1)), max_size=7),
)
def test_any_layout_gives_a_consistent_choice(
    expression: str, drawn: list[tuple[tuple[float, float, float, float, str], float]]
) -> None:
    candidates = [LabelledBox(Box(x, y, x + w, y + h), kind, score) for (x, y, w, h, kind), score in drawn]
    query = parse(expression)
    choice = choose(query, candidates, SIZE)
    assert len(choice.scores) == len(candidates)
    assert all(0.0 <= score <= 1.0 for score in choice.scores)
    assert 0.0 <= choice.margin <= 1.0
    assert len(set(choice.indices)) == len(choice.indices)
    assert choice.indices or choice.code not in (None, "ambiguous", "unknown-word")
    assert choice.code is None or len(choice.indices) <= 4
    assert 0.0 <= choice.chance <= 1.0
    assert (choice.code is None) == (choice.message == "")
    if query.category:
        assert all(candidates[i].category == query.category for i in choice.indices)
    if choice.code is None and not query.is_all:
        assert len(choice.indices) == 1


@given(st.permutations(range(5)), st.sampled_from([case for case in CASES if case[0] is PORT and case[1].strip()]))
def test_the_order_of_the_candidates_does_not_matter(order: list[int], case: tuple[Layout, str, str]) -> None:
    layout, expression, expected = case
    names = [*(list(layout)[i] for i in order), *list(layout)[5:]]
    assert outcome({name: layout[name] for name in names}, expression)[0] == expected
