from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_tools.categories import CATEGORIES, OTHER_COMPOUNDS, canonical, find_mentions, plural_of

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


def test_rrsis_d_names_in_the_order_of_their_ids_then_building() -> None:
    names = (
        "Expressway-Service-area Expressway-toll-station airplane airport baseballfield basketballcourt bridge chimney "
        "dam golffield groundtrackfield harbor overpass ship stadium storagetank tenniscourt trainstation vehicle "
        "windmill"
    )
    assert list(CATEGORIES) == [*names.split(), "building"]


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


@pytest.mark.parametrize("label", ["", "  ", "helicopter", "swimming pool", "shipping", "card", "飞机"])
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
