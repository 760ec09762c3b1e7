"""Find more like this: a word that nobody taught the detector, from the first objects that somebody accepted."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.pipeline.grounding.compact import exemplars
from backend.pipeline.grounding.compact.cells import Cells, cells_of
from backend.pipeline.grounding.compact.exemplars import CompactMatcher, GrounderWithExemplars
from backend.pipeline.grounding.compact.grounder import CompactGrounder, load_compact_grounder
from backend.pipeline.grounding.exemplars import Lesson, digest
from backend.pipeline.types import Box
from dataset_tools import synthetic
from dataset_tools.synthetic import Scene

WEIGHTS = Path(__file__).resolve().parents[4] / "backend" / "weights" / "compact_grounder" / "model.safetensors"
WORD = "quibble"


@pytest.fixture(scope="module")
def grounder() -> CompactGrounder:
    return load_compact_grounder(WEIGHTS)


@pytest.fixture(scope="module")
def matcher(grounder: CompactGrounder) -> CompactMatcher:
    return CompactMatcher(grounder)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Scenes with at least two airplanes, which nobody calls by that name here."""
    drawn = (synthetic.draw_scene(seed, 480, 360, theme="airport") for seed in range(40))
    return [scene for scene in drawn if len(boxes(scene)) >= 2][:3]


def boxes(scene: Scene) -> list[Box]:
    return [Box.of_mask(item.mask) for item in scene.objects if item.category == "airplane"]


@pytest.fixture(scope="module")
def lesson(matcher: CompactMatcher, scenes: list[Scene]) -> Lesson:
    return matcher.learn(scenes[0].image, boxes(scenes[0]), [], complete=True)


def test_objects_like_the_accepted_ones_are_found_in_another_image(
    matcher: CompactMatcher, lesson: Lesson, scenes: list[Scene]
) -> None:
    found = matcher.find(scenes[1].image, {WORD: [lesson]})
    assert found
    assert all(one.category == WORD and 0 < one.score <= 1 for one in found)
    assert max(found[0].box.iou(box) for box in boxes(scenes[1])) >= 0.5
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_an_answer_is_bounded_by_what_images_hold(matcher: CompactMatcher, lesson: Lesson) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    assert len(matcher.find(noise, {WORD: [lesson]})) <= max(10, 3 * int(lesson["most"][0]))


def test_the_word_is_understood_and_its_objects_are_chosen_like_all_others(
    grounder: CompactGrounder, matcher: CompactMatcher, lesson: Lesson, scenes: list[Scene]
) -> None:
    before = grounder.ground(scenes[1].image, f"all the {WORD}s")
    assert before.abstention is not None
    assert before.abstention.code == "unknown-category"
    taught = GrounderWithExemplars(grounder, matcher, {WORD: [lesson]})
    after = taught.ground(scenes[1].image, f"all the {WORD}s")
    assert after.groundings
    assert {one.category for one in after.groundings} == {WORD}
    leftmost = taught.ground(scenes[1].image, f"the leftmost {WORD}")
    assert len(leftmost.groundings) == 1
    middle = np.median([one.box.center.x for one in after.groundings])
    assert leftmost.groundings[0].box.center.x <= middle


def test_what_the_grounder_knows_itself_is_left_to_it(
    grounder: CompactGrounder, matcher: CompactMatcher, lesson: Lesson, scenes: list[Scene]
) -> None:
    taught = GrounderWithExemplars(grounder, matcher, {"airplane": [lesson], WORD: [lesson]})
    assert set(taught.lessons) == {WORD}
    text = "all the airplanes"
    assert taught.ground(scenes[2].image, text).groundings == grounder.ground(scenes[2].image, text).groundings


def test_what_was_rejected_scores_lower_afterwards(matcher: CompactMatcher, scenes: list[Scene]) -> None:
    some, other = scenes[0], scenes[1]
    shown = boxes(some)[:1]
    plain = matcher.learn(some.image, shown, [], complete=False)
    first = matcher.find(other.image, {WORD: [plain]})
    rejected = [one.box for one in first[:3]]
    said_no = matcher.learn(other.image, [], rejected, complete=True)
    again = matcher.find(other.image, {WORD: [plain, said_no]})

    def score(found: tuple[object, ...], box: Box) -> float:
        return max((one.score for one in found if one.box.iou(box) > 0.9), default=0.0)  # type: ignore[attr-defined]

    assert rejected
    assert sum(score(again, box) for box in rejected) < sum(score(first, box) for box in rejected)


def test_the_same_image_and_objects_make_the_same_lesson(
    matcher: CompactMatcher, lesson: Lesson, scenes: list[Scene]
) -> None:
    again = matcher.learn(scenes[0].image, boxes(scenes[0]), [], complete=True)
    assert digest({WORD: [again]}) == digest({WORD: [lesson]})
    assert sum(array.nbytes for array in again.values()) < 200_000


def test_what_the_heat_is_blind_to_is_found_by_what_the_backbone_sees(scenes: list[Scene]) -> None:
    blind = load_compact_grounder(WEIGHTS)
    with torch.no_grad():
        blind.detector.heat.conv.weight.zero_()  # all that it looks for is gone, as for what it took for background
    matcher = CompactMatcher(blind)
    lesson = matcher.learn(scenes[0].image, boxes(scenes[0]), [], complete=True)
    for scene in scenes[1:]:
        best = matcher.find(scene.image, {WORD: [lesson]})[0]
        assert max(best.box.iou(box) for box in boxes(scene)) >= 0.5


def test_lessons_of_many_images_make_one_rule_whatever_their_order(
    matcher: CompactMatcher, lesson: Lesson, scenes: list[Scene]
) -> None:
    other = matcher.learn(scenes[2].image, boxes(scenes[2]), [], complete=True)
    found, turned = (matcher.find(scenes[1].image, {WORD: taught}) for taught in ([lesson, other], [other, lesson]))
    assert [one.box for one in found] == [one.box for one in turned]
    assert np.allclose([one.score for one in found], [one.score for one in turned], atol=1e-3)


def test_an_image_is_looked_at_once_for_all_that_is_learnt_of_it(
    grounder: CompactGrounder, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[weakref.ref[Cells]] = []

    def look(*args: Any, **options: Any) -> Cells:
        cells = cells_of(*args, **options)
        looked.append(weakref.ref(cells))
        return cells

    monkeypatch.setattr(exemplars, "cells_of", look)
    matcher = CompactMatcher(grounder)
    image, (first, *rest) = scenes[0].image.copy(), boxes(scenes[0])
    lesson = matcher.learn(image, [first], [], complete=False)
    matcher.find(image, {WORD: [lesson]})
    matcher.learn(image, rest, [first], complete=True)
    assert len(looked) == 1
    del image
    assert looked[0]() is None, "nothing of an image is kept that nobody holds any more"


def test_what_lessons_found_says_where_it_is_and_how_large_they_are(
    grounder: CompactGrounder, matcher: CompactMatcher, lesson: Lesson, scenes: list[Scene]
) -> None:
    taught = GrounderWithExemplars(grounder, matcher, {WORD: [lesson]})
    shown = sorted((box.width, box.height) for box in boxes(scenes[0]))
    for one in taught.ground(scenes[1].image, f"all the {WORD}s").groundings:
        assert one.like is not None
        assert sorted(one.like.sizes) == shown
    known = taught.ground(scenes[1].image, "all the airplanes").groundings
    assert known
    assert all(one.like is None for one in known)


@pytest.mark.parametrize("side", [3.0, 24.0, 90.0])
def test_all_cells_are_scored_as_those_that_are_described(
    grounder: CompactGrounder, scenes: list[Scene], side: float
) -> None:
    cells = cells_of(grounder.detector, grounder.calibration.scales, scenes[0].image, bfloat16=False)
    weights = np.random.default_rng(0).standard_normal(cells.dimensions).astype(np.float32)
    chosen = np.random.default_rng(1).choice(len(cells.boxes), 500, replace=False)
    described = cells.described(chosen, side)
    assert np.allclose(cells.weighted(weights, side)[chosen], described @ weights, atol=1e-3)


def test_about_as_many_are_found_as_there_are() -> None:
    """Without the heat's features and boxes: as of objects that the detector took for background."""
    blind = load_compact_grounder(WEIGHTS)
    with torch.no_grad():
        blind.detector.heat.conv.weight.zero_()
    matcher = CompactMatcher(blind)
    drawn = (synthetic.draw_scene(seed, 480, 360, theme="airport") for seed in range(40))
    shown = [scene for scene in drawn if len(boxes(scene)) >= 2][:7]
    lessons = [matcher.learn(scene.image, boxes(scene), [], complete=True) for scene in shown[:4]]
    objects = sum(len(boxes(scene)) for scene in shown[4:])
    found = [
        max(box.iou(one.box) for box in boxes(scene))
        for scene in shown[4:]
        for one in matcher.find(scene.image, {WORD: lessons})
        if one.score >= 0.5
    ]
    assert sum(overlap >= 0.3 for overlap in found) >= 0.6 * objects
    assert len(found) <= 3 * objects
