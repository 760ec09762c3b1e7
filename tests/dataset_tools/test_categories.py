from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_tools.categories import CATEGORIES, KINDS, OTHER_COMPOUNDS, canonical, find_mentions, kind_of, plural_of

NWPU_VHR10 = {
    "airplane": "airplane",
    "ship": "ship",
    "storage_tank": "storagetank",
    "baseball_diamond": "baseballfield",
    "tennis_court": "tenniscourt",
    "basketball_court": "basketballcourt",
    "ground_track_field": "groundtrackfield",
    "harbor": "harbor",
    "bridge": "bridge",
    "vehicle": "vehicle",
}


def test_rrsis_d_names_in_the_order_of_their_ids_then_what_other_data_brought() -> None:
    names = (
        "Expressway-Service-area Expressway-toll-station airplane airport baseballfield basketballcourt bridge chimney "
        "dam golffield groundtrackfield harbor overpass ship stadium storagetank tenniscourt trainstation vehicle "
        "windmill"
    )
    assert list(CATEGORIES) == [*names.split(), "building", "helicopter", "swimmingpool", "roundabout", "soccerfield"]


@pytest.mark.parametrize(("label", "name"), NWPU_VHR10.items())
def test_names_of_nwpu_vhr10(label: str, name: str) -> None:
    assert canonical(label) == name


@pytest.mark.parametrize("name", CATEGORIES)
def test_no_alias_belongs_to_two_categories(name: str) -> None:
    category = CATEGORIES[name]
    assert canonical(category.plural) == name
    for noun in (category.name, category.display, *category.aliases):
        assert canonical(noun) == name, noun
        assert canonical(plural_of(noun)) == name, noun


@given(st.sampled_from(sorted(CATEGORIES)), st.sampled_from(["_", "-", " ", "", "  "]), st.booleans())
def test_case_and_separators_are_ignored(name: str, separator: str, upper: bool) -> None:
    label = separator.join(CATEGORIES[name].plural.split(" "))
    assert canonical(label.upper() if upper else label.title()) == name


@pytest.mark.parametrize("label", ["", "  ", "rugby field", "gas station", "shipping", "card", "飞机"])
def test_other_labels_are_none(label: str) -> None:
    assert canonical(label) is None


@pytest.mark.parametrize(
    ("noun", "plural"),
    [
        ("ferry", "ferries"),
        ("quay", "quays"),
        ("wharf", "wharves"),
        ("overpass", "overpasses"),
        ("aircraft", "aircraft"),
        ("bus", "buses"),
        ("expressway service area", "expressway service areas"),
    ],
)
def test_plurals(noun: str, plural: str) -> None:
    assert plural_of(noun) == plural
    assert canonical(plural) == canonical(noun) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the ground track field", [("groundtrackfield", False)]),
        ("a ground-track-field beside baseball_diamonds", [("groundtrackfield", False), ("baseballfield", True)]),
        ("an overpass is no pass", [("overpass", False)]),
        ("two wharves and a harbor", [("harbor", True), ("harbor", False)]),
        ("the aircraft", [("airplane", None)]),
        ("the train station", [("trainstation", False)]),
        ("a train at the station", []),
        ("cars in the car park", [("vehicle", True)]),
        ("the storage tank truck", [("storagetank", False), ("vehicle", False)]),
    ],
)
def test_longest_mention_wins(text: str, expected: list[tuple[str, bool | None]]) -> None:
    assert [(m.category, m.plural) for m in find_mentions(text.split())] == expected


@pytest.mark.parametrize("compound", OTHER_COMPOUNDS)
def test_compounds_with_a_category_word_are_none(compound: str) -> None:
    assert canonical(compound) is None
    assert find_mentions(compound.split()) == []


@given(st.lists(st.text(max_size=8), max_size=30))
def test_mentions_lie_in_the_text_and_do_not_overlap(words: list[str]) -> None:
    previous = 0
    for mention in find_mentions(words):
        assert previous <= mention.start < mention.stop <= len(words)
        previous = mention.stop


@pytest.mark.parametrize(
    ("words", "kind"),
    [("the truck", "large vehicle"), ("two buses", "large vehicle"), ("the large vehicle", "large vehicle"),
     ("red cars", "small vehicle"), ("a small vehicle", "small vehicle"), ("the vehicle", "vehicle"),
     ("the car park", None)],
)  # fmt: skip
def test_words_of_a_kind_name_the_kind_only_for_who_knows_it(words: str, kind: str | None) -> None:
    def named(own: frozenset[str]) -> list[str]:
        return [mention.category for mention in find_mentions(words.split(), own)]

    assert named(frozenset(KINDS)) == ([] if kind is None else [kind])
    assert named(frozenset()) == ([] if kind is None else ["vehicle"])


def test_labels_of_kinds_are_their_category() -> None:
    assert (canonical("small_vehicle"), kind_of("small_vehicle")) == ("vehicle", "small vehicle")
    assert (canonical("Trucks"), kind_of("Trucks")) == ("vehicle", "large vehicle")
    assert kind_of("vehicle") is None
    assert kind_of("ship") is None
