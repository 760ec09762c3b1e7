"""The compact grounder: which detections answer which expressions, and what it says when none does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.pipeline.grounding.compact.answering import answer
from backend.pipeline.grounding.compact.detections import Detection
from backend.pipeline.grounding.compact.grounder import CompactGrounder, load_compact_grounder
from backend.pipeline.grounding.compact.network import COMPACT_CATEGORIES, Calibration, Detector, DetectorConfig
from backend.pipeline.types import GroundingResult, Image, NamedImage
from dataset_tools import synthetic
from dataset_tools.expressions.parser import parse
from dataset_tools.geometry import Box, Point

CALIBRATION = Calibration(dict.fromkeys(COMPACT_CATEGORIES, 0.4))
SIZE = (600, 800)
SHIPPED = Path(__file__).resolve().parents[4] / "backend" / "weights" / "compact_grounder" / "model.safetensors"
LEFT, RIGHT, FAR = Box(50, 280, 110, 340), Box(600, 270, 690, 360), Box(700, 20, 760, 80)


def ask(expression: str, *detections: Detection) -> GroundingResult:
    ranked = sorted(detections, key=lambda d: -d.score)
    return answer(parse(expression), ranked, CALIBRATION, SIZE)


def boxes(result: GroundingResult) -> list[Box]:
    return [grounding.box for grounding in result.groundings]


def test_one_strong_detection_answers_despite_weak_ones() -> None:
    result = ask("the airplane", Detection(LEFT, "airplane", 0.9), Detection(RIGHT, "airplane", 0.25))
    assert boxes(result) == [LEFT]
    assert result.groundings[0].category == "airplane"
    other = CALIBRATION.probability("airplane", 0.25)
    assert result.groundings[0].score == pytest.approx(CALIBRATION.probability("airplane", 0.9) * (1 - other))
    assert [c.box for c in result.candidates] == [LEFT, RIGHT]


def test_an_answer_is_worth_less_where_a_doubtful_object_would_change_it() -> None:
    near, middle, far = Box(100, 300, 150, 350), Box(300, 300, 350, 350), Box(600, 300, 650, 350)
    sure = Detection(middle, "ship", 0.97), Detection(far, "ship", 0.97)
    wave, likely = Detection(near, "ship", 0.3), Detection(near, "ship", 0.5)
    certain, doubt, there = (CALIBRATION.probability("ship", score) for score in (0.97, 0.3, 0.5))
    assert 0.08 < doubt < 0.5 < there < 0.95

    def worth(expression: str, *others: Detection) -> tuple[Box, float]:
        (found,) = ask(expression, *sure, *others).groundings
        return found.box, round(found.score, 6)

    second = "the second ship from the left"
    assert worth(second) == (far, round(certain, 6))
    assert worth(second, wave) == (far, round(certain * (1 - doubt), 6)), "were it a ship, another were the second"
    assert worth(second, likely) == (middle, round(certain * there, 6)), "were it none, another were the second"
    assert worth(second, replace(wave, category="airplane")) == (far, round(certain, 6)), "nobody asked about it"
    assert worth("the rightmost ship", wave) == (far, round(certain, 6)), "it lies at the other side"


def test_an_explanation_says_what_doubtful_objects_cost() -> None:
    sure = Detection(Box(300, 300, 350, 350), "ship", 0.97), Detection(Box(600, 300, 650, 350), "ship", 0.97)
    wave = Detection(Box(100, 300, 150, 350), "ship", 0.3)
    image = np.zeros((*SIZE, 3), np.uint8)
    assert not any("doubtful" in line for line in Seeing(*sure).explain(image, "the second ship from the left").lines)
    *_, last = Seeing(*sure, wave).explain(image, "the second ship from the left").lines
    factor = 1 - CALIBRATION.probability("ship", 0.3)
    assert last.startswith(f"score times {factor:.2f}: ")


def test_the_objects_of_all_are_each_worth_what_they_are() -> None:
    found = [Detection(LEFT, "ship", 0.9), Detection(RIGHT, "ship", 0.7), Detection(FAR, "ship", 0.3)]
    scores = {one.box: one.score for one in ask("all the ships", *found).groundings}
    assert scores == {d.box: CALIBRATION.probability("ship", d.score) for d in found[:2]}


def test_ambiguous_only_if_several_are_certain() -> None:
    certain = Detection(LEFT, "airplane", 0.97), Detection(RIGHT, "airplane", 0.96)
    result = ask("the airplane", *certain)
    assert result.abstention is not None
    assert result.abstention.code == "ambiguous"
    assert {c.box for c in result.abstention.candidates} == {LEFT, RIGHT}
    assert boxes(ask("the airplane", certain[0], Detection(RIGHT, "airplane", 0.7))) == [LEFT]


def test_position_chooses_among_equals() -> None:
    ships = Detection(LEFT, "ship", 0.7), Detection(RIGHT, "ship", 0.9)
    assert boxes(ask("the left-most vessel", *ships)) == [LEFT]
    assert boxes(ask("the ship in the right of the image", *ships)) == [RIGHT]
    assert sorted(boxes(ask("every ship", *ships))) == [LEFT, RIGHT]


def test_weak_detections_do_not_take_part_in_all() -> None:
    found = Detection(LEFT, "ship", 0.9), Detection(RIGHT, "ship", 0.7), Detection(FAR, "ship", 0.22)
    assert sorted(boxes(ask("all the ships", *found))) == [LEFT, RIGHT]


def test_all_of_doubtful_objects_are_those_that_one_would_be() -> None:
    doubtful = Detection(LEFT, "ship", 0.37), Detection(RIGHT, "ship", 0.36), Detection(FAR, "ship", 0.1)
    unsure = replace(CALIBRATION, answer=0.25)
    assert boxes(answer(parse("the left ship"), doubtful, unsure, SIZE)) == [LEFT]
    assert sorted(boxes(answer(parse("all the ships"), doubtful, unsure, SIZE))) == [LEFT, RIGHT]
    assert answer(parse("all the ships"), doubtful[2:], unsure, SIZE).abstention is not None


def test_nothing_found_is_absent_with_the_closest_candidates() -> None:
    result = ask("the bridge", Detection(LEFT, "airplane", 0.9), Detection(RIGHT, "bridge", 0.21))
    assert result.groundings == ()
    assert result.abstention is not None
    assert result.abstention.code == "absent"
    assert [c.box for c in result.abstention.candidates] == [RIGHT]


def test_weak_objects_may_be_referred_to() -> None:
    found = (
        Detection(LEFT, "vehicle", 0.8),
        Detection(RIGHT, "vehicle", 0.8),
        Detection(Box(620, 380, 780, 560), "building", 0.25),
    )
    assert boxes(ask("the car nearest to the building", *found)) == [RIGHT]


@pytest.fixture(scope="module")
def tiny() -> CompactGrounder:
    torch.manual_seed(0)
    config = DetectorConfig(widths=(4, 8, 8, 8, 8), depths=(1, 1, 1, 1), pyramid_width=8)
    return CompactGrounder(Detector(config).eval(), Calibration(CALIBRATION.even, scales=(96,)))


@pytest.mark.parametrize("expression", ["the windmill", "the giraffe next to the bridge", "the frobnicator"])
def test_unknown_category_names_the_word_and_what_is_known(tiny: CompactGrounder, expression: str) -> None:
    result = tiny.ground(np.zeros((40, 50, 3), np.uint8), expression)
    assert result.abstention is not None
    assert result.abstention.code == "unknown-category"
    assert f"'{expression.split()[1]}'" in result.abstention.message
    for words in ("airplane", "storage tank", "building", "grounding_dino_sam_vit_b"):
        assert words in result.abstention.message


class Seeing(CompactGrounder):
    """Has seen ``found`` in every image; counts how often it looked."""

    def __init__(self, *found: Detection) -> None:
        super().__init__(Detector(DetectorConfig()).eval(), CALIBRATION)
        self.found, self.looks = found, 0

    def detections(self, image: Image, *, key: str | None = None) -> tuple[Detection, ...]:
        self.looks += 1
        assert image.shape == (*SIZE, 3)
        return self.found


def clicked(grounder: CompactGrounder, x: float, y: float, *names: str, size: tuple[int, int] = SIZE) -> Box | None:
    return grounder.object_at(Point(x, y), names, NamedImage.of(np.zeros((*size, 3), np.uint8), "image"))


def test_a_click_means_the_likeliest_object_of_its_label() -> None:
    block, one, other = Box(100, 100, 300, 200), Box(100, 100, 160, 200), Box(160, 100, 220, 200)
    grounder = Seeing(
        Detection(block, "tenniscourt", 0.5),
        Detection(one, "tenniscourt", 0.5),
        Detection(other, "tenniscourt", 0.5),
        Detection(Box(90, 90, 170, 210), "baseballfield", 0.95),
        Detection(FAR, "ship", 0.06),
    )
    assert clicked(grounder, 130, 150, "Tennis_Court") == one, "its middle was clicked, and not the block's"
    assert clicked(grounder, 190, 150, "tennis courts") == other
    assert clicked(grounder, 200, 150, "tenniscourt") == block
    assert clicked(grounder, 130, 150, "Court 1", "tennis court") == one, "by any of the label's names"
    assert clicked(grounder, 400, 400, "tennis court") is None, "there is none"
    assert clicked(grounder, 730, 50, "ship") is None, "too unlikely"


def test_what_the_detector_does_not_know_it_does_not_look_for() -> None:
    grounder = Seeing(Detection(LEFT, "ship", 0.9))
    for names in (("solar panel",), ("object",), ()):
        assert clicked(grounder, 80, 300, *names) is None
    assert clicked(grounder, 80, 300, "ship", size=(600, 4000)) is None, "no click waits for a scene of tiles"
    assert grounder.looks == 0
    assert clicked(grounder, 80, 300, "ship") == LEFT


def test_a_truck_is_looked_for_as_what_it_is() -> None:
    seen = Detection(LEFT, "vehicle", 0.9), Detection(RIGHT, "large vehicle", 0.8)
    grounder = Seeing(*seen)
    assert clicked(grounder, 640, 300, "Truck") == RIGHT
    assert clicked(grounder, 640, 300, "vehicle") is None
    assert clicked(grounder, 80, 300, "vehicle") == LEFT


def test_an_image_is_looked_at_once_for_words_and_clicks(tiny: CompactGrounder) -> None:
    image = np.random.default_rng(4).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    seen = tiny.detections(image, key="seen")

    def pixels() -> Image:
        raise AssertionError("it was seen before")

    known, new = NamedImage("seen", (40, 50), pixels), NamedImage.of(image, "unseen")
    assert tiny.object_at(Point(20, 20), ["ship"], known) == tiny.object_at(Point(20, 20), ["ship"], new)
    assert tiny.detections(image, key="unseen") == seen


@pytest.mark.parametrize("expression", ["", "   ", "...", "?"])
def test_empty_expression(tiny: CompactGrounder, expression: str) -> None:
    result = tiny.ground(np.zeros((40, 50, 3), np.uint8), expression)
    assert result.abstention is not None
    assert result.abstention.code == "empty-expression"


def test_a_long_expression_gets_a_short_message(tiny: CompactGrounder) -> None:
    result = tiny.ground(np.zeros((40, 50, 3), np.uint8), "blah" * 1250)
    assert result.abstention is not None
    assert len(result.abstention.message) < 500


def test_an_image_is_read_once_for_many_expressions_and_threads(tiny: CompactGrounder) -> None:
    runs: list[int] = []
    handle = tiny.detector.register_forward_hook(lambda *_: runs.append(1))
    rng = np.random.default_rng(5)
    image, other = rng.integers(0, 256, (2, 40, 50, 3)).astype(np.uint8)
    try:
        first = tiny.ground(image, "the ship")
        assert tiny.ground(image.copy(), "the ship") == first
        tiny.ground(image, "all the airplanes")
        assert len(runs) == 1
        tiny.ground(other, "the ship")
        assert len(runs) == 2
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: tiny.ground(image, "the ship"), range(8)))
        assert results == [first] * 8
        assert len(runs) == 2
    finally:
        handle.remove()


def test_known_categories_are_the_detectors(tiny: CompactGrounder) -> None:
    assert tiny.known_categories == frozenset(COMPACT_CATEGORIES)


def test_shipped_weights_answer_on_drawn_scenes() -> None:
    grounder = load_compact_grounder(SHIPPED)
    right: list[bool] = []
    absent: list[bool] = []
    for seed in (7, 8, 9):
        scene = synthetic.draw_scene(seed)
        for item in synthetic.expressions(scene, seed=0):
            result = grounder.ground(scene.image, item.expression)
            if not item.targets:
                absent.append(not result.groundings)
            elif len(item.targets) == 1:
                target = scene.objects[item.targets[0]].box
                right.append(bool(result.groundings) and result.groundings[0].box.iou(target) >= 0.5)
    assert len(right) >= 30
    assert np.mean(right) >= 0.8
    assert np.mean(absent) >= 0.8


def test_shipped_weights_fit_their_budget() -> None:
    assert SHIPPED.stat().st_size <= 12_000_000
    card = (SHIPPED.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "research" in card


def test_kinds_of_vehicles_answer_to_their_words_only() -> None:
    car = [Detection(LEFT, name, 0.9) for name in ("vehicle", "small vehicle")]
    truck = [Detection(RIGHT, name, 0.8) for name in ("vehicle", "large vehicle")]

    def found(words: str) -> list[Box]:
        query = parse(words, frozenset(COMPACT_CATEGORIES))
        return sorted(boxes(answer(query, [*car, *truck], CALIBRATION, SIZE)))

    assert found("the truck") == [RIGHT]
    assert found("the small vehicle") == [LEFT]
    assert found("all the vehicles") == [LEFT, RIGHT]
    assert found("every object on the left") in ([], [LEFT])
    assert found("the car to the left of the truck") == [LEFT]
