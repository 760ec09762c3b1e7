"""Splits and duplicates: no scene straddles, shares hold, nothing moves when data is added."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_tools import duplicates, splits, synthetic
from dataset_tools.errors import DatasetError
from dataset_tools.splits import SceneGroup


def many(count: int, seed: int = 0) -> list[SceneGroup]:
    rng = np.random.default_rng(seed)
    names = ["ship small", "ship large", "bridge medium", "vehicle small"]
    return [
        SceneGroup(f"scene-{k}", {str(n): int(rng.integers(1, 6)) for n in rng.choice(names, 2, replace=False)})
        for k in range(count)
    ]


def test_shares_hold_for_every_stratum() -> None:
    scenes = many(400)
    parts = splits.assign(scenes)
    for stratum in ("ship small", "ship large", "bridge medium", "vehicle small"):
        counts: Counter[str] = Counter()
        for scene in scenes:
            counts[parts[scene.name]] += scene.strata.get(stratum, 0)
        total = sum(counts.values())
        assert {part: counts[part] / total for part in splits.RRSISM} == pytest.approx(splits.RRSISM, abs=0.02)


@given(st.permutations(many(30)), st.integers(0, 5))
@settings(max_examples=20)
def test_order_does_not_matter_and_seeds_do(scenes: list[SceneGroup], seed: int) -> None:
    assert splits.assign(scenes, seed=seed) == splits.assign(many(30), seed=seed)
    assert splits.assign(many(30), seed=seed) != splits.assign(many(30), seed=seed + 1)


def test_adding_data_moves_nothing() -> None:
    first = splits.assign(many(60))
    known = [SceneGroup(scene.name, scene.strata, first[scene.name]) for scene in many(60)]
    added = [SceneGroup(f"new-{k}", {"ship small": 2}) for k in range(40)]
    parts = splits.assign([*known, *added])
    assert {name: parts[name] for name in first} == first
    again = splits.assign([*known, *added, SceneGroup("one-more", {"bridge medium": 1})])
    assert {name: again[name] for name in parts} == parts
    assert {parts[scene.name] for scene in added} == {"train", "val", "test"}


@pytest.mark.parametrize("shares", [{}, {"train": -1.0, "test": 2.0}, {"train": 0.0}])
def test_unusable_shares_are_explained(shares: dict[str, float]) -> None:
    with pytest.raises(DatasetError, match="shares must be"):
        splits.assign(many(3), shares)


def test_strata_follow_category_and_size() -> None:
    assert [splits.stratum("ship", share) for share in (0.001, 0.02, 0.4)] == [
        "ship small",
        "ship medium",
        "ship large",
    ]


def test_copies_are_found_and_other_scenes_are_not() -> None:
    images = {f"scene-{k}": synthetic.draw_scene(k, 400, 300).image for k in range(12)}
    original = images["scene-3"]
    images["resized"] = cv2.resize(original, (250, 190), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", original, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    images["jpeg"] = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)
    images["darker"] = (original * 0.7).astype(np.uint8)
    pairs = duplicates.near_duplicates((name, duplicates.perceptual_hash(image)) for name, image in images.items())
    assert {name for pair in pairs for name in pair[:2]} == {"scene-3", "resized", "jpeg", "darker"}


def test_flat_images_are_no_duplicates_of_one_another() -> None:
    blue = np.full((50, 60, 3), (20, 60, 90), np.uint8)
    grey = np.full((50, 60, 3), 100, np.uint8)
    assert (
        duplicates.near_duplicates([("a", duplicates.perceptual_hash(blue)), ("b", duplicates.perceptual_hash(grey))])
        == []
    )


def test_scenes_join_across_names_and_duplicates() -> None:
    scenes = {"a": "north", "b": "north", "c": None, "d": None, "e": None}
    joined = duplicates.scenes_of(reversed(scenes), scenes.__getitem__, [("d", "b"), ("c", "e")])
    assert joined == {"a": "a", "b": "a", "d": "a", "c": "c", "e": "c"}
