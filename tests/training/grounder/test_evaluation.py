"""Average precision and thresholds of the compact grounder."""

from __future__ import annotations

import numpy as np
import pytest

from backend.pipeline.grounding.compact.detections import Detection
from backend.training.grounder.calibration import calibrate
from backend.training.grounder.data import OutlinedObject, TrainingImage, outline
from backend.training.grounder.evaluation import average_precision, detection_quality, matched
from dataset_tools.geometry import Box

A, B, C = Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(50, 50, 60, 60)


@pytest.mark.parametrize(
    ("detections", "expected"),
    [
        ([(A, 0.9), (B, 0.8)], 1.0),
        ([(A, 0.9), (C, 0.85), (B, 0.8)], 0.5 + 0.5 * 2 / 3),
        ([(A, 0.9), (A, 0.8)], 0.5),  # the repeat finds nothing
        ([(C, 0.9)], 0.0),
        ([], 0.0),
    ],
)
def test_average_precision(detections: list[tuple[Box, float]], expected: float) -> None:
    assert average_precision([detections], [[A, B]]) == pytest.approx(expected)


def image(boxes: dict[str, list[Box]], unlabelled: dict[str, float] | None = None) -> TrainingImage:
    objects = tuple(
        OutlinedObject(category, (np.array([[b.x0, b.y0], [b.x1, b.y0], [b.x1, b.y1], [b.x0, b.y1]], np.float32),))
        for category, listed in boxes.items()
        for b in listed
    )
    return TrainingImage("image", np.zeros((64, 64, 3), np.uint8), objects, unlabelled or {})


def test_images_silent_about_a_category_do_not_count_for_it() -> None:
    images = [image({"ship": [A]}, {"building": 0.0}), image({"building": [B]}, {"ship": 0.0})]
    found = [[Detection(A, "ship", 0.9), Detection(C, "building", 0.95)], [Detection(B, "building", 0.5)]]
    quality = detection_quality(found, images, ("ship", "building", "bridge"))
    assert quality == {"mAP50": 1.0, "AP50 ship": 1.0, "AP50 building": 1.0}


def test_thresholds_separate_and_rare_categories_lean_on_the_rest() -> None:
    many = [Box(x, 0, x + 8, 8) for x in range(0, 600, 10)]
    images = [image({"ship": many, "bridge": [C]})]
    found = [
        [Detection(box, "ship", 0.55) for box in many]
        + [Detection(Box(box.x0, 40, box.x1, 48), "ship", 0.30) for box in many]
        + [Detection(C, "bridge", 0.15)]
    ]
    calibration = calibrate(found, images, ("ship", "bridge", "harbor"), (640,))
    assert 0.30 < calibration.even["ship"] <= 0.55
    # One bridge is no reason to leave the common threshold, none at all even less.
    assert abs(calibration.even["bridge"] - calibration.even["harbor"]) < 0.05
    assert calibration.probability("ship", 0.55) > 0.5 > calibration.probability("ship", 0.30)
    assert calibration.scales == (640,)


def test_answers_start_where_present_and_absent_images_part() -> None:
    images = [image({"ship": [A]}) for _ in range(10)] + [image({}) for _ in range(10)]
    found = [[Detection(A, "ship", 0.7)] for _ in range(10)] + [[Detection(B, "ship", 0.45)] for _ in range(10)]
    calibration = calibrate(found, images, ("ship",), (640,))
    assert calibration.probability("ship", 0.45) < calibration.answer <= calibration.probability("ship", 0.7)


def test_matching_of_crowds_takes_each_true_box_once() -> None:
    truth = [Box(20.0 * k, 0, 20.0 * k + 15, 15) for k in range(300)]
    found = [box.shifted(1, 0) for box in truth for _ in range(2)]
    hits = matched(found, truth)
    assert sum(hits) == 300
    assert hits == [True, False] * 300


def test_a_kind_is_rated_where_kinds_are_told_apart() -> None:
    mask = np.zeros((64, 64), bool)
    mask[10:30, 10:40] = True
    truck = OutlinedObject("vehicle", outline(mask, 1.0), "large vehicle")
    blank = np.zeros((64, 64, 3), np.uint8)
    told = TrainingImage("told", blank, (truck,), {})
    untold = TrainingImage("untold", blank, (truck,), {"large vehicle": 0.0})
    found = [Detection(truck.box, "vehicle", 0.9), Detection(truck.box, "large vehicle", 0.8)]
    quality = detection_quality([found, []], [told, untold], ("vehicle", "small vehicle", "large vehicle"))
    assert quality == {"mAP50": 0.75, "AP50 vehicle": 0.5, "AP50 large vehicle": 1.0}
