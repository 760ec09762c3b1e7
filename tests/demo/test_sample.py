"""The demo's tasks: every kind of expression is in, and the same choice comes out every time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from backend.demo.sample import sample_questions
from backend.demo.scenes import SEEDS, write_scenes
from dataset_tools.export import export
from dataset_tools.formats import read
from dataset_tools.formats.coco_jsonl import KINDS
from dataset_tools.geometry import Box
from dataset_tools.labelled import LabelledExpression, LabelledImage, LabelledObject, Question, questions, read_held_out


def _question(number: int, kind: str, image: str = "a.png", category: str = "ship") -> Question:
    objects = (LabelledObject(category, Box(0, 0, 1, 1), (2, 2)),)
    named = () if kind == "absent" else (0,)
    expression = LabelledExpression(f"the {category}", named, kind, category, number)
    return Question(LabelledImage(Path(image), 2, 2, objects, (expression,), name=image), expression)


def test_rare_kinds_are_not_crowded_out() -> None:
    asked = [_question(number, "single") for number in range(50)] + [_question(99, "absent")]
    chosen = sample_questions(asked, 5)
    assert Counter(item.kind for item in chosen) == {"single": 4, "absent": 1}


def test_images_and_categories_are_spread() -> None:
    asked = [
        _question(number, "single", f"{number // 4}.png", ("ship", "bridge", "harbor", "airplane")[number % 4])
        for number in range(16)
    ]
    chosen = sample_questions(asked, 4)
    assert len({item.image.name for item in chosen}) == 4
    assert len({item.label for item in chosen}) == 4


def test_fewer_expressions_than_wanted_are_all_taken() -> None:
    asked = [_question(number, "single") for number in range(3)]
    assert sample_questions(asked, 24) == asked


def test_the_drawn_scenes_offer_every_kind(tmp_path: Path) -> None:
    drawn: list[int] = []
    write_scenes(tmp_path, lambda: drawn.append(1))
    images = read_held_out(tmp_path)
    assert len(images) == len(drawn) == len(SEEDS)
    chosen = sample_questions(questions(images), 20)
    assert len(chosen) == 20
    assert {item.kind for item in chosen} >= {*KINDS, "color"}
    assert chosen == sample_questions(questions(images), 20)
    assert min(len(image.objects) for image in images) > 1


def test_a_dataset_with_splits_gives_its_test_part(shared_data: Path) -> None:
    folder = shared_data / "nwpu_vhr10"
    names = json.loads((folder / "split.json").read_text())["test"]
    assert {image.name for image in read_held_out(folder)} == set(names)


@pytest.mark.parametrize("name", ["refer", "masks"])
def test_other_formats_serve_as_well(tmp_path: Path, name: str) -> None:
    write_scenes(tmp_path / "scenes", lambda: None)
    export((sample.with_split("test") for sample in read(tmp_path / "scenes")), tmp_path / name, name)
    chosen = sample_questions(questions(read_held_out(tmp_path / name)), 20)
    assert len(chosen) == 20
    assert all(question.target().any() for question in chosen)
