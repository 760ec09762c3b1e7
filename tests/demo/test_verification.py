"""The demo must not pass with predictions that are missing, double, damaged, mislabelled or wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.demo.label_studio_client import StoredPrediction
from backend.demo.verification import absent_abstained, check_predictions, present_figures, quality_failures
from dataset_tools import brush_rle, synthetic
from dataset_tools.labelled import LabelledExpression, LabelledImage, Question, read

LABEL_CONFIG = (
    '<View><Header value="$expression"/><Image name="image" value="$image"/>'
    '<BrushLabels name="mask" toName="image"><Label value="ship"/></BrushLabels></View>'
)
VERSION = "compact-00000000"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> LabelledImage:
    folder = tmp_path_factory.mktemp("scenes")
    synthetic.write(folder, [synthetic.draw_scene(1, 320, 240, theme="coast")])
    (image,) = read(folder)
    return image


@pytest.fixture
def present(image: LabelledImage) -> Question:
    return Question(image, LabelledExpression("the ship", (0,), "single", image.objects[0].label))


@pytest.fixture
def absent(image: LabelledImage) -> Question:
    return Question(image, LabelledExpression("the dam", (), "absent", "dam", 1))


def _region(mask: np.ndarray[Any, np.dtype[np.bool_]], label: str = "ship", **changes: Any) -> dict[str, Any]:
    height, width = mask.shape
    return {
        "id": "r1",
        "from_name": "mask",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": brush_rle.encode(mask), "brushlabels": [label]},
        **changes,
    }


def _prediction(*regions: dict[str, Any], version: str = VERSION, task: int = 1) -> StoredPrediction:
    return StoredPrediction(1, task, version, 0.5, list(regions))


def test_a_right_mask_passes(present: Question, absent: Question) -> None:
    stored = [_prediction(_region(present.target())), _prediction(task=2)]
    outcomes = check_predictions({1: present, 2: absent}, stored, VERSION, LABEL_CONFIG)
    assert [outcome.problems for outcome in outcomes] == [(), ()]
    assert present_figures(outcomes) == (1.0, 1.0)
    assert absent_abstained(outcomes) is True
    assert quality_failures(outcomes, 0.7) == []


def test_wrong_answers_fail(present: Question, absent: Question) -> None:
    wrong = np.zeros_like(present.target())
    wrong[:5, :5] = True
    stored = [_prediction(_region(wrong)), _prediction(_region(wrong), task=2), _prediction(task=3)]
    outcomes = check_predictions({1: present, 2: absent, 3: present}, stored, VERSION, LABEL_CONFIG)
    assert absent_abstained(outcomes) is False
    failures = "\n".join(quality_failures(outcomes, 0.7))
    assert "task 2: a mask for 'the dam', which is not in the image" in failures
    assert "task 3: no mask for 'the ship', which is in the image" in failures
    assert "mIoU 0.000 is below 0.70" in failures


def _problems(question: Question, *stored: StoredPrediction) -> str:
    (outcome,) = check_predictions({1: question}, stored, VERSION, LABEL_CONFIG)
    return "\n".join(outcome.problems)


def test_malformed_predictions_are_found(present: Question) -> None:
    mask = present.target()
    good = _region(mask)
    assert "expected exactly one" in _problems(present)
    assert "expected exactly one" in _problems(present, _prediction(good), _prediction(good))
    assert "expected exactly one" in _problems(present, _prediction(good, version="older-1"))
    assert "labeling config" in _problems(present, _prediction(_region(mask, "dam")))
    half = _region(mask[::2, ::2])
    assert "instead of (240, 320)" in _problems(present, _prediction(half))
    garbled = _region(mask, value={**half["value"]})
    assert "does not decode at 240 x 320" in _problems(present, _prediction(garbled))
