"""Properties of the queue: complete, repeatable, and not crowded by duplicates."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.learning.ranking.strategies import (
    EXACT_CENTRES,
    STRATEGIES,
    Candidate,
    Features,
    disagreement,
    farthest_first,
    order,
)


def unit(*values: float) -> Features:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def candidate(
    key: int,
    score: float | None = 0.5,
    category: str | None = "ship",
    disputed: float = 0.0,
    image: str | None = None,
    features: Features | None = None,
) -> Candidate:
    if features is None:  # 60 places spread evenly on a sphere: nobody is another's duplicate
        height, turn = 1 - (2 * (key % 60) + 1) / 60, key * math.pi * (3 - math.sqrt(5))
        radius = math.sqrt(1 - height**2)
        features = unit(radius * math.cos(turn), radius * math.sin(turn), height)
    return Candidate(key, score, disputed, category, features, image or f"image-{key}")


@st.composite
def candidates(draw: st.DrawFn, max_size: int = 40) -> list[Candidate]:
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    rows = draw(
        st.lists(
            st.tuples(
                st.one_of(st.none(), st.floats(0, 1)),
                st.floats(0, 1),
                st.sampled_from(["ship", "bridge", None]),
                st.integers(0, 5),
            ),
            max_size=max_size,
        )
    )
    return [
        Candidate(key, score, disputed, category, unit(*generator.normal(size=4)), f"image-{image}")
        for key, (score, disputed, category, image) in enumerate(rows)
    ]


@given(candidates(), candidates(max_size=6), st.sampled_from(STRATEGIES), st.integers(0, 3))
def test_every_candidate_once_and_the_same_each_time(
    items: list[Candidate], labelled: list[Candidate], strategy: str, seed: int
) -> None:
    first = order(items, strategy, labelled, seed)
    assert sorted(first) == list(range(len(items)))
    assert order(items, strategy, labelled, seed) == first


def test_least_certain_first() -> None:
    assert order([candidate(0, 0.9), candidate(1, 0.2), candidate(2, 0.6)], "uncertainty") == [1, 2, 0]


def test_unanswered_take_every_second_place_at_most() -> None:
    items = [candidate(i, (None, 0.0)[i % 2]) for i in range(6)] + [candidate(6, 0.8), candidate(7, 0.3)]
    ranked = order(items, "uncertainty")
    assert ranked[0] == 7
    assert ranked[2] == 6
    assert {ranked[1], *ranked[3:]} == set(range(6))


def test_most_disputed_first_then_least_certain() -> None:
    items = [candidate(0, 0.2), candidate(1, 0.9, disputed=0.4), candidate(2, 0.1, disputed=0.0)]
    assert order(items, "disagreement") == [1, 2, 0]


def test_worst_pair_is_the_disagreement() -> None:
    assert disagreement(0.9, None, 0.3) == pytest.approx(0.7)
    assert disagreement(None) == 0.0
    assert disagreement() == 0.0


def test_diversity_visits_every_cluster_before_a_second_of_one() -> None:
    centres = [unit(1, 0, 0), unit(0, 1, 0), unit(0, 0, 1)]
    items = [candidate(i, features=unit(*(centres[i % 3] + 0.1 * (i // 3)))) for i in range(12)]
    assert {index % 3 for index in order(items, "diversity")[:3]} == {0, 1, 2}


def test_diversity_starts_far_from_what_is_labelled() -> None:
    items = [candidate(i, features=unit(math.cos(i * math.pi / 2), math.sin(i * math.pi / 2))) for i in range(4)]
    assert order(items, "diversity", [items[0]])[0] == 2
    assert order(items, "diversity", [items[2]])[0] == 0


@given(candidates(), candidates(max_size=4))
def test_greedy_centres_are_within_twice_the_best_radius(items: list[Candidate], known: list[Candidate]) -> None:
    """What k-centre greedy promises: after k picks no row is farther from a centre than any pick was when taken."""
    if not items:
        return
    features = np.stack([c.features for c in items])
    centres = np.stack([c.features for c in known]) if known else np.zeros((0, 4), np.float32)
    chosen, nearest = farthest_first(features, centres, 0, 3)
    assert len(set(chosen.tolist())) == len(chosen) == min(3, len(items))
    every = np.concatenate([centres, features[chosen]])
    expected = ((features[:, None] - every[None]) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(nearest, expected, atol=1e-5)
    if len(chosen) == 3 and (known or len(items) > 3):
        before = np.concatenate([centres, features[chosen[:-1]]])
        last = ((features[chosen[-1]] - before) ** 2).sum(axis=1).min()
        assert nearest.max() <= last + 1e-5


def test_the_rarest_category_comes_next() -> None:
    items = [candidate(i, category=("ship", "ship", "ship", "bridge", "harbor")[i % 5]) for i in range(20)]
    labelled = [candidate(100 + i, category="harbor") for i in range(2)]
    first = Counter(items[i].category for i in order(items, "balance", labelled)[:10])
    assert first == {"ship": 4, "bridge": 4, "harbor": 2}


def test_balance_prefers_the_least_certain_of_a_category() -> None:
    items = [candidate(0, 0.9), candidate(1, 0.1), candidate(2, 0.8, "bridge"), candidate(3, 0.2, "bridge")]
    assert order(items, "balance")[:2] == [3, 1]


def test_mix_serves_each_strategy() -> None:
    """First of each: the lowest score, what is farthest from the label, the rare category, the disputed one."""
    items = [candidate(i, 0.3 + 0.01 * i, "bridge" if i == 45 else "ship", 0.9 if i == 40 else 0.0) for i in range(60)]
    known = candidate(100, features=unit(1, 0, 0))
    farthest = int(np.argmin([item.features @ known.features for item in items]))
    assert len({0, farthest, 45, 40}) == 4
    assert {0, farthest, 45, 40} <= set(order(items, "mix", labelled=[known])[:6])


def test_offset_and_length_of_features_do_not_matter() -> None:
    items = [candidate(i) for i in range(30)]
    moved = [replace(item, features=4 * item.features + 1) for item in items]
    for strategy in STRATEGIES:
        assert order(moved, strategy) == order(items, strategy)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "random"])
@pytest.mark.parametrize("alike", ["image", "features"])
def test_near_duplicates_do_not_crowd_the_queue(strategy: str, alike: str) -> None:
    """Ten tasks of one scene are the best by every measure; only one of them is among the first five."""
    same = unit(-1, 0.2, 0.3)
    items = [
        candidate(
            i,
            0.01,
            disputed=0.9,
            image="scene" if alike == "image" else None,
            features=unit(*(same + 0.01 * np.eye(3)[i % 3])) if alike == "features" else None,
        )
        for i in range(10)
    ] + [candidate(i, 0.5 + 0.01 * i, disputed=0.1) for i in range(10, 30)]
    ranked = order(items, strategy)
    assert sum(index < 10 for index in ranked[:5]) <= 1
    assert sum(index < 10 for index in ranked[:15]) <= 3


def test_duplicates_of_labelled_images_step_back() -> None:
    items = [candidate(0, 0.1, image="seen"), candidate(1, 0.3), candidate(2, 0.4)]
    assert order(items, "uncertainty")[0] == 0
    assert order(items, "uncertainty", [candidate(9, image="seen")])[0] == 1


def test_chance_differs_by_seed_and_only_by_seed() -> None:
    items = [candidate(i) for i in range(30)]
    assert order(items, "random", seed=1) != order(items, "random", seed=2)
    assert order(items, "random", [candidate(99)], seed=1) == order(items, "random", seed=1)


def test_without_features() -> None:
    items = [candidate(i, features=np.zeros(0, np.float32)) for i in range(5)]
    for strategy in STRATEGIES:
        assert sorted(order(items, strategy)) == list(range(5))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (candidate(7, score=1.5), "candidate 7: a score"),
        (candidate(7, score=math.nan), "candidate 7: a score"),
        (candidate(7, disputed=-0.1), "candidate 7: a disagreement"),
        (candidate(7, features=unit(1, 1)), "one length"),
        (candidate(7, features=np.array([math.nan, 0, 0], np.float32)), "finite"),
    ],
)
def test_bad_candidates_are_named(item: Candidate, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        order([candidate(0), item], "mix")


def test_unknown_strategy_lists_the_known() -> None:
    with pytest.raises(ValueError, match="uncertainty, disagreement"):
        order([candidate(0)], "best")


def test_more_candidates_than_exact_centres() -> None:
    """Past the exact picks the order goes on by distance; nothing is lost or repeated."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(EXACT_CENTRES + 500, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    items = [candidate(i, features=features[i]) for i in range(len(features))]
    ranked = order(items, "diversity")
    assert sorted(ranked) == list(range(len(items)))
