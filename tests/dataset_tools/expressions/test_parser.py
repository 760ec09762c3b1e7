from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_tools.categories import CATEGORIES
from dataset_tools.expressions.lexicon import lexemes
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Color, Constraint, Extreme, Group, Place, Query, Relation, Shape, Size

_WORDS = (
    "the a all every both two 3 second ship ships left right of from to the upper lower most closest nearest farthest "
    "near between and not with in on image corner side largest smaller than white round one , . there is bridge "
    "helicopter it its middle row group above that than among facing second"
)
VOCABULARY = _WORDS.split()


def of(*constraints: Constraint, category: str = "ship") -> tuple[str, tuple[Constraint, ...]]:
    return category, constraints


def target(query: Query) -> Query:
    """The one target of the query's one relation."""
    (relation,) = query.relations
    (found,) = relation.targets
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("left-most plane", of(Extreme((-1, None)), category="airplane")),
        ("plane, left-most", of(Extreme((-1, None)), category="airplane")),
        ("the vessel closest to the bottom edge", of(Extreme((None, 1)))),
        ("the tiniest of the storage tanks", of(Size(-1, True), category="storagetank")),
        ("the ship nearest to the top-left corner of the image", of(Extreme((-1, -1)))),
        ("the third ship from the top", of(Extreme((None, -1), 3))),
        ("second largest ship", of(Size(1, True, rank=2))),
        ("the upper ship", of(Place((None, -1), of_image=False))),
        ("the ship on the right side", of(Place((1, None), of_image=False))),
        ("the ship on the right side of the image", of(Place((1, None), of_image=True))),
        ("the ship in the upper left corner", of(Place((-1, -1), of_image=True))),
        ("the ship not on the left", of(Place((-1, None), of_image=False, negated=True))),
        ("on the left there is a ship", of(Place((-1, None), of_image=False))),
        ("a long white ship", of(Size(1, False, "length"), Color("white"))),
        ("a circular oil tank", of(Shape("round"), category="storagetank")),
        ("a dark-colored car", of(Color("dark"), category="vehicle")),
        ("the ship whose bow points to the left", of()),
        ("the basketball court, not the ground track field", of(category="basketballcourt")),
        ("the ships lined up along the bottom", of(Place((None, 1), of_image=False))),
        ("the tanks set up on the left", of(Place((-1, None), of_image=False), category="storagetank")),
    ],
)
def test_conditions(expression: str, expected: tuple[str, tuple[Constraint, ...]]) -> None:
    query = parse(expression)
    assert (query.category, query.constraints) == expected


@pytest.mark.parametrize(
    ("expression", "kind", "direction", "noun", "category"),
    [
        ("a car that is north of the bridge", "direction", (None, -1), "bridge", "bridge"),
        ("the car to the lower left of the truck", "direction", (-1, 1), "truck", "vehicle"),
        ("the plane above and to the right of the hangar", "direction", (1, -1), "hangar", "building"),
        ("next to the bridge is a ship", "near", (None, None), "bridge", "bridge"),
        ("the car inside the car park", "in", (None, None), "car park", None),
        ("the bridge over the river", "on", (None, -1), "river", None),
        ("the ship furthest away from the pier", "farthest", (None, None), "pier", "harbor"),
        ("the closest ship to the pier", "nearest", (None, None), "pier", "harbor"),
        ("the stadium with a tennis court to its left", "direction", (1, None), "tennis court", "tenniscourt"),
        ("the house surrounded by tall trees", "surrounded", (None, None), "trees", None),
        ("the ship that is larger than the yacht", "larger", (None, None), "yacht", "ship"),
        ("the ship that isn't near the harbour", "near", (None, None), "harbour", "harbor"),
    ],
)
def test_relations(expression: str, kind: str, direction: object, noun: str, category: str | None) -> None:
    query = parse(expression)
    (relation,) = query.relations
    assert (relation.kind, relation.direction, target(query).noun) == (kind, direction, noun)
    assert target(query).category == category
    assert relation.negated == ("n't" in expression)


def test_words_after_a_target_belong_to_the_target() -> None:
    query = parse("the ship left of the largest harbor on the right")
    assert len(query.constraints) == 1
    assert target(query).constraints == (Size(1, True), Place((1, None), of_image=False))


def test_a_comma_leads_back_to_what_is_asked_for() -> None:
    query = parse("the ship left of the harbor, red")
    assert Color("red") in query.constraints
    assert target(query).constraints == ()


def test_a_counted_pool_is_a_group() -> None:
    (group, size) = parse("the larger of the two ships on the left").constraints
    assert group == Group("any", 2, members=(Place((-1, None), of_image=False),))
    assert size == Size(1, True)


def test_between_takes_two_targets() -> None:
    (relation,) = parse("the car between the white bus and the bridge").relations
    assert [t.category for t in relation.targets] == ["vehicle", "bridge"]


def test_target_categories_at_any_depth() -> None:
    query = parse("the car near the ship left of the bridge and the stadium")
    assert query.target_categories == {"ship", "bridge", "stadium"}


@pytest.mark.parametrize(
    ("expression", "is_all", "count"),
    [
        ("the ship", False, None),
        ("every ship", True, None),
        ("each of the ships", True, None),
        ("ships", True, None),
        ("all aircraft", True, None),
        ("the aircraft", False, None),
        ("the aircraft are on the left", True, None),
        ("both ships", True, 2),
        ("the three largest ships", True, 3),
        ("one of the ships", False, None),
        ("the largest of all the ships", False, None),
        ("the smaller of the two ships", False, None),
        ("there are two ships, the left one", False, None),
        ("a group of ships", True, None),
        ("one ship", False, 1),
    ],
)
def test_one_or_all(expression: str, is_all: bool, count: int | None) -> None:
    query = parse(expression)
    assert (query.is_all, query.count) == (is_all, count)


@pytest.mark.parametrize(
    ("expression", "word"),
    [
        ("the lighthouse left of the plane", "lighthouse"),
        ("the gas station", "gas station"),
        ("a brown horse near the stadium", "horse"),
        ("the parking lots", "parking lots"),
        ("左边的飞机", "左边的飞机"),
        ("the rugby field inside the ground track field", "rugby field"),
    ],
)
def test_unknown_nouns_are_named(expression: str, word: str) -> None:
    query = parse(expression)
    assert query.category is None
    assert word in query.unknown_words


@pytest.mark.parametrize(("expression"), ["", "   ", "\n", "?!", "---", "\u200b"])
def test_nothing_asked_for(expression: str) -> None:
    assert parse(expression).is_empty


@pytest.mark.parametrize("name", CATEGORIES)
def test_every_name_and_alias_is_found_in_a_sentence(name: str) -> None:
    category = CATEGORIES[name]
    for noun in (category.name, category.display, *category.aliases):
        query = parse(f"the largest {noun} on the left of the image")
        assert query.category == name, noun
        assert not query.unknown_words
    assert parse(f"all the {category.plural} at the top").is_all


@pytest.mark.parametrize(
    "typed", ["the storge tank", "aeroplne on the left", "basketbal court", "the expresway toll station"]
)
def test_slips_of_the_pen(typed: str) -> None:
    assert parse(typed).category is not None


@given(st.text(max_size=5000))
def test_never_raises(text: str) -> None:
    query = parse(text)
    assert query.text == text
    assert query.is_empty or query.category or query.unknown_words or not query.noun


@given(st.lists(st.sampled_from(VOCABULARY), max_size=60).map(" ".join))
def test_never_raises_on_words_it_knows(text: str) -> None:
    query = parse(text)
    assert query.category is None or query.category in CATEGORIES
    for constraint in query.constraints:
        assert not isinstance(constraint, Relation) or constraint.targets


@given(st.sampled_from(["the ship left of ", "not ", "between the ships and ", "of the ", "nearest to the top left "]))
def test_long_texts_are_cut_and_not_refused(phrase: str) -> None:
    assert len(lexemes(phrase * 500)) <= 400
    parse((phrase * 5000)[:5000])


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("every tennis court", "all"),
        ("the plane", "single"),
        ("the red car", "color"),
        ("left-most plane", "extreme"),
        ("second storage tank from the right", "extreme"),
        ("the larger of the two ships on the left", "size"),
        ("the ship in the upper left of the image", "region"),
        ("a car that is north of the bridge", "relation"),
        ("the harbor nearest to the large ship", "near"),
    ],
)
def test_the_kind_of_an_expression(expression: str, kind: str) -> None:
    assert parse(expression).kind == kind


@pytest.mark.parametrize(
    ("expression", "category", "is_all"),
    [
        ("the leftmost solar panel", "solar panel", False),
        ("all the Solar-Panels", "solar panel", True),
        ("the solar panel left of the ship", "solar panel", False),
        ("the ship left of the solar panel", "ship", False),
        ("the car park", "car park", False),
        ("the gas station", None, False),
    ],
)
def test_a_project_s_own_labels_are_categories(expression: str, category: str | None, is_all: bool) -> None:
    own = ("solar panel", "car park", "ship")
    query = parse(expression, own)
    assert (query.category, query.is_all) == (category, is_all)
    assert parse(expression).category in (None, "ship")
    if "left of" in expression:
        assert query.target_categories == {"solar panel", "ship"} - {category}
