"""The demo's tasks: every kind of expression is in, and the same choice comes out every time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from backend.demo.sample import read_dataset, sample_expressions
from backend.demo.scenes import SEEDS, write_scenes
from dataset_tools.formats.coco_jsonl import KINDS, Expression


def _expression(number: int, kind: str, image: str = "a.png", category: str = "ship") -> Expression:
    return Expression(number, image, category, f"the {category}", kind, () if kind == "absent" else (number,))


def test_rare_kinds_are_not_crowded_out() -> None:
    expressions = [_expression(number, "single") for number in range(50)] + [_expression(99, "absent")]
    chosen = sample_expressions(expressions, 5)
    assert Counter(item.kind for item in chosen) == {"single": 4, "absent": 1}


def test_images_and_categories_are_spread() -> None:
    expressions = [
        _expression(number, "single", f"{number // 4}.png", ("ship", "bridge", "harbor", "airplane")[number % 4])
        for number in range(16)
    ]
    chosen = sample_expressions(expressions, 4)
    assert len({item.image for item in chosen}) == 4
    assert len({item.category for item in chosen}) == 4


def test_fewer_expressions_than_wanted_are_all_taken() -> None:
    expressions = [_expression(number, "single") for number in range(3)]
    assert sample_expressions(expressions, 24) == expressions


def test_the_drawn_scenes_offer_every_kind(tmp_path: Path) -> None:
    drawn: list[int] = []
    write_scenes(tmp_path, lambda: drawn.append(1))
    dataset = read_dataset(tmp_path)
    assert len(dataset.images) == len(drawn) == len(SEEDS)
    chosen = sample_expressions(dataset.expressions, 20)
    assert len(chosen) == 20
    assert {item.kind for item in chosen} >= {*KINDS, "color"}
    assert chosen == sample_expressions(dataset.expressions, 20)
    assert min(len(image.annotations) for image in dataset.images) > 1


def test_a_dataset_with_splits_gives_its_test_part(shared_data: Path) -> None:
    dataset = read_dataset(shared_data / "nwpu_vhr10")
    assert {image.file_name for image in dataset.images} == set(dataset.split["test"])
