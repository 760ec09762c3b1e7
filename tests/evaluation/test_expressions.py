"""Evaluation: numbers worked out by hand, on a dataset small enough to do so; and one JSON object on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.evaluation.expressions import evaluate, jittered, read_questions
from backend.pipeline import PslgSam
from backend.pipeline.config import PipelineConfig
from backend.pipeline.types import (
    Abstention,
    Box,
    Embedding,
    Grounding,
    GroundingResult,
    Image,
    Mask,
    MaskPrediction,
    Prompts,
)
from dataset_tools import formats
from dataset_tools.errors import DatasetError
from dataset_tools.export import export
from dataset_tools.labelled import LabelledExpression, LabelledImage, LabelledObject, Question, about_whole_objects
from dataset_tools.metrics import CONVENTIONS
from dataset_tools.synthetic import draw_scene, write

SIZE = (100, 100)
LEFT, RIGHT = Box(0, 0, 40, 40), Box(50, 50, 90, 90)
SMALL = Box(60, 5, 70, 15)


def mask_of(*boxes: Box) -> Mask:
    mask = np.zeros(SIZE, np.bool_)
    for box in boxes:
        mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
    return mask


class Words:
    """Grounds "left", "right", "small" at their places, "half" at a half of left's box, and nothing else."""

    known_categories = None

    def ground(self, image: Image, expression: str, *, key: str | None = None, labels: object = ()) -> GroundingResult:
        places = {"left": LEFT, "right": RIGHT, "small": SMALL, "half": Box(0, 0, 40, 20)}
        boxes = [box for word, box in places.items() if word in expression.split()]
        if not boxes:
            return GroundingResult((), Abstention("absent", "nothing"))
        return GroundingResult(tuple(Grounding(box, 0.9, "ship") for box in boxes))


class Filled:
    """A segmenter whose mask is the box; embeds whole images."""

    encoder_hash = "filled"

    def window_for(self, box: Box, image_size: tuple[int, int]) -> Box:
        return Box(0, 0, image_size[1], image_size[0])

    def embed(self, image: Image, window: Box | None = None, *, key: str | None = None) -> Embedding:
        return Embedding("key", np.zeros((1, 1, 1), np.float16), (image.shape[0], image.shape[1]), Box(0, 0, 1, 1))

    def decode(self, embedding: Embedding, prompts: Prompts) -> MaskPrediction:
        assert prompts.box is not None
        rounded = Box(*(float(round(value)) for value in prompts.box))
        return MaskPrediction(mask_of(rounded), 0.9, np.zeros((1, 1), np.float32), lambda: 0.9)

    def mask_prompt(self, embedding: Embedding, mask: Mask) -> Any:
        raise NotImplementedError


@pytest.fixture
def pipeline() -> PslgSam:
    config = PipelineConfig.model_validate(
        {
            "name": "filled",
            "grounder": {"kind": "compact", "weights": "none"},
            "segmenter": {"kind": "sam", "weights": "none"},
            "foreground_points": {"enabled": False},
            "boundary": {"enabled": False},
        }
    )
    return PslgSam(Words(), Filled(), config, "filled-00000000")


OBJECTS = (
    LabelledObject.of("ship", mask_of(LEFT), "1"),
    LabelledObject.of("ship", mask_of(RIGHT), "2"),
    LabelledObject.of("vehicle", mask_of(SMALL), "3"),
)
IMAGE = LabelledImage(Path("a.png"), *SIZE, OBJECTS)


def question(text: str, kind: str, *objects: int, category: str = "ship") -> Question:
    return Question(IMAGE, LabelledExpression(text, objects, kind, category))


QUESTIONS = (
    question("left", "region", 0),  # IoU 1
    question("half", "size", 0),  # IoU 0.5: 800 of 1600
    question("left right", "all", 0, 1),  # IoU 1
    question("left", "all", 0, 1),  # IoU 0.5: 1600 of 3200
    question("nothing", "single", 2, category="vehicle"),  # no answer: 0 of 100
    question("nothing", "absent"),
    question("right", "absent"),
)


def blank(path: Path) -> Image:
    return np.zeros((*SIZE, 3), np.uint8)


def test_figures_of_predicted_boxes(pipeline: PslgSam) -> None:
    report = evaluate(pipeline, QUESTIONS, blank, convention=CONVENTIONS["native"]).report()
    assert report["n"] == 5
    assert report["mIoU"] == pytest.approx((1 + 0.5 + 1 + 0.5 + 0) / 5)
    assert report["oIoU"] == pytest.approx((1600 + 800 + 3200 + 1600 + 0) / (1600 + 1600 + 3200 + 3200 + 100))
    assert report["P@0.5"] == pytest.approx(4 / 5)
    assert report["P@0.6"] == pytest.approx(2 / 5)
    assert report["single_target"]["n"] == 3
    assert report["single_target"]["mIoU"] == pytest.approx(0.5)
    assert report["small_objects"]["n"] == 1
    assert {kind: values["n"] for kind, values in report["by_kind"].items()} == {
        "all": 2,
        "region": 1,
        "single": 1,
        "size": 1,
    }
    assert report["by_category"]["vehicle"]["mIoU"] == 0
    assert report["grounding"] == {"n": 3, "P@0.5": pytest.approx(2 / 3)}
    assert report["absent"] == {"n": 2, "abstained": 1}
    assert report["present"] == {"n": 5, "answered": 4}
    assert report["model_version"] == "filled-00000000"
    assert "native" in report["convention"]
    assert "instances" not in report


def test_ground_truth_boxes_measure_each_object_once(pipeline: PslgSam) -> None:
    result = evaluate(pipeline, QUESTIONS, blank, boxes="ground-truth", convention=CONVENTIONS["native"])
    report = result.report()
    assert report["mIoU"] == 1
    assert report["absent"]["n"] == 0
    assert report["instances"]["n"] == 3
    assert {name: values["n"] for name, values in report["instances"]["by_category"].items()} == {
        "ship": 2,
        "vehicle": 1,
    }
    assert report["box_jitter"] == 0


def test_jittered_boxes_cost_quality_and_are_the_same_in_every_run(pipeline: PslgSam) -> None:
    figures = [
        evaluate(
            pipeline, QUESTIONS, blank, boxes="ground-truth", box_jitter=0.1, convention=CONVENTIONS["native"]
        ).report()["instances"]["mIoU"]
        for _ in range(2)
    ]
    assert figures[0] == figures[1]
    assert 0.6 < figures[0] < 1
    for seed in range(50):
        moved = jittered(RIGHT, 0.1, seed)
        assert max(abs(a - b) for a, b in zip(moved, RIGHT, strict=True)) <= 4


def test_the_convention_decides_what_counts(pipeline: PslgSam) -> None:
    strict = evaluate(pipeline, QUESTIONS, blank, convention=CONVENTIONS["segearth"]).report()
    assert strict["P@0.5"] == pytest.approx(2 / 5)  # > instead of >=


def test_a_refer_root_asks_the_same_questions_as_the_folder_it_was_made_of(synthetic: Path, tmp_path: Path) -> None:
    export(formats.read(synthetic), tmp_path / "root", "refer")
    ours = {one.expression.text + one.image.path.stem: one for one in read_questions(synthetic, "test") if one.targets}
    theirs = read_questions(tmp_path / "root", "test")
    assert theirs
    for one in theirs:
        original = ours[one.expression.text + original_stem(one.image.path, ours)]
        (target,) = one.targets  # REFER holds the union of all targets
        union = np.any([each.mask() for each in original.targets], axis=0)
        assert np.array_equal(target.mask(), union)
        assert target.box == Box.of_mask(union)
    with pytest.raises(DatasetError, match="no split 'holdout'"):
        read_questions(tmp_path / "root", "holdout")


def original_stem(image: Path, ours: dict[str, Question]) -> str:
    return next(one.image.path.stem for one in ours.values() if one.image.path.stem in image.stem)


@dataclass
class CountingEmbed:
    calls: int = 0


def test_windows_are_embedded_once_per_image_and_their_time_counted_where_due(pipeline: PslgSam) -> None:
    counter = CountingEmbed()
    embed = pipeline.segmenter.embed

    def slow(image: Image, window: Box | None = None, *, key: str | None = None) -> Embedding:
        counter.calls += 1
        return embed(image, window, key=key)

    pipeline.segmenter.embed = slow  # type: ignore[method-assign]
    result = evaluate(pipeline, QUESTIONS, blank, convention=CONVENTIONS["native"])
    assert counter.calls == 1
    for outcome in result.outcomes:
        assert outcome.spent.wall >= outcome.spent_embedded.wall >= 0
        assert outcome.spent.cpu >= outcome.spent_embedded.cpu >= 0
        if outcome.answered:
            assert outcome.spent.wall > outcome.spent_embedded.wall


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write(folder, [draw_scene(seed, width=320, height=240) for seed in range(2)], seed=0, split=(0.0, 0.0, 1.0))
    return folder


def pslg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "backend", *arguments], capture_output=True, text=True, check=False)


def test_the_command_prints_one_json_object_and_a_gallery(synthetic: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "worst.png"
    done = pslg(
        *("evaluate", "--data", str(synthetic), "--config", "compact", "--split", "test", "--limit", "6"),
        *("--json", "--gallery", str(gallery)),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    wanted = (
        "mIoU oIoU P@0.5 P@0.6 P@0.7 P@0.8 P@0.9 n by_kind by_category single_target absent present seconds cpu_seconds"
    )
    assert set(wanted.split()) <= set(report)
    assert report["n"] + report["absent"]["n"] == 6
    assert report["model_version"].startswith("compact-")
    assert cv2.imread(str(gallery)) is not None


def test_the_command_prints_a_table_for_people(synthetic: Path) -> None:
    done = pslg("evaluate", "--data", str(synthetic), "--limit", "3", "--boxes", "ground-truth", "--no-boundary")
    assert done.returncode == 0, done.stderr
    for word in ("mIoU", "oIoU", "single target", "objects, each once", "convention: native", "seconds per expression"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "no/such/folder"), "no/such/folder"),
        (("--data", "{data}", "--split", "holdout"), "holdout"),
        (("--data", "{data}", "--config", "compct"), "compct"),
        (("--data", "{data}", "--gallery", "worst.gif"), ".png"),
    ],
)
def test_mistakes_are_named_without_a_traceback(synthetic: Path, arguments: tuple[str, ...], message: str) -> None:
    done = pslg("evaluate", *(argument.replace("{data}", str(synthetic)) for argument in arguments))
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_only_questions_about_whole_objects_of_a_size_are_kept() -> None:
    cut = LabelledObject("ship", LEFT, SIZE, truncated=True)
    objects = (cut, LabelledObject("ship", SMALL, SIZE), LabelledObject("ship", RIGHT, SIZE))
    image = LabelledImage(Path("a.png"), *SIZE, objects)
    asked = [Question(image, LabelledExpression("x", named)) for named in ((0,), (1, 2), (2,), ())]
    assert about_whole_objects(asked) == asked
    assert about_whole_objects(asked, whole=True) == asked[1:]
    assert about_whole_objects(asked, whole=True, min_side=11) == asked[2:]
