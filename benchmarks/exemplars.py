"""How well "find more like this" works: categories that a grounder does not know, after 1, 5 and 10 accepted objects.

    python -m benchmarks.exemplars --data FOLDER --split train --categories helicopter,swimmingpool --json

Of each category some images are drawn: from the first ones objects are accepted one after the other, the others
measure, end to end from the words to the masks. The category's word is replaced by one that no lexicon holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from backend.evaluation.expressions import evaluate
from backend.learning.simulation.first_objects import whole_objects
from backend.learning.simulation.words import renamed
from backend.pipeline import PslgSam, load_pipeline
from backend.pipeline.config import load_config
from backend.pipeline.grounding.compact.exemplars import CompactMatcher, GrounderWithExemplars
from backend.pipeline.grounding.compact.grounder import CompactGrounder
from backend.pipeline.grounding.exemplars import Lesson
from dataset_tools.errors import ConfigError
from dataset_tools.image_files import read as read_image
from dataset_tools.labelled import LabelledImage, questions, read, spread
from dataset_tools.metrics import CONVENTIONS

WORD = "quibble"
"""What the categories are called: no word of the lexicon."""


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Dataset folder.")
@click.option("--split", default="train", show_default=True)
@click.option("--categories", default="helicopter,swimmingpool,roundabout,soccerfield", show_default=True)
@click.option("--config", default="compact", show_default=True)
@click.option("--weights", help="Other weights of the compact grounder.")
@click.option("--objects", default="1,5,10", show_default=True, help="Accepted objects after which is measured.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--images", default=12, show_default=True, help="Unseen images of each category.")
@click.option("--expressions", default=24, show_default=True, help="Expressions of each category, at most.")
@click.option("--json", "as_json", is_flag=True)
def main(
    data: Path,
    split: str,
    categories: str,
    config: str,
    weights: str | None,
    objects: str,
    seeds: int,
    images: int,
    expressions: int,
    as_json: bool,
) -> None:
    """Print P@0.5, mIoU and seconds by category and number of accepted objects."""
    loaded = load_config(config)
    if weights:
        loaded = loaded.model_copy(update={"grounder": loaded.grounder.model_copy(update={"weights": weights})})
    pipeline = load_pipeline(loaded)
    found = read(data, split)
    counts = [int(part) for part in objects.split(",")]
    rows: list[Mapping[str, Any]] = []
    for category in categories.split(","):
        holding = [image for image in found if whole_objects(image, category)]
        for seed in range(seeds):
            for row in _measured(pipeline, category, holding, counts, seed, images, expressions):
                rows.append(row)
                click.echo(_line(row), err=True)
    summary = {str(count): _summary([row for row in rows if row["objects"] == count]) for count in counts}
    if as_json:
        click.echo(json.dumps({"summary": summary, "rows": rows}))
        return
    for count, figures in summary.items():
        click.echo(f"{count} objects: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['category']:14} seed {row['seed']}, {row['objects']:3} objects: P@0.5 {row['P@0.5']:.2f}, mIoU"
        f" {row['mIoU']:.3f}, answered {row['answered']:.2f}, {row['found']:.1f} found per image"
        f" ({row['n']} expressions, each image learnt in {row['learn_seconds']:.2f} CPU s)"
    )


def _measured(
    pipeline: PslgSam,
    category: str,
    holding: Sequence[LabelledImage],
    counts: Sequence[int],
    seed: int,
    images: int,
    expressions: int,
) -> Iterator[dict[str, Any]]:
    grounder = pipeline.grounder
    if not isinstance(grounder, CompactGrounder):
        raise ConfigError("only the compact grounder finds more like what was accepted")
    order = np.random.default_rng(seed).permutation(len(holding))
    unseen = [_renamed(holding[index], category) for index in order[:images]]
    shown = [holding[index] for index in order[images:]]
    asked = spread([question for question in questions(unseen) if question.expression.objects], expressions)
    matcher = CompactMatcher(grounder)
    for count in counts:
        started = time.process_time()
        lessons, accepted, used = _lessons(matcher, shown, category, count)
        seconds = (time.process_time() - started) / max(1, used)
        taught = GrounderWithExemplars(grounder, matcher, {WORD: lessons})
        model = PslgSam(taught, pipeline.segmenter, pipeline.config, pipeline.model_version)
        convention = CONVENTIONS["native"]
        outcomes = evaluate(model, asked, read_image, convention=convention).outcomes
        ious = np.array([outcome.iou(convention) for outcome in outcomes])
        boxes = [len(model.ground(image.pixels(), f"all the {WORD}s", key=image.key).groundings) for image in unseen]
        yield {
            "category": category,
            "seed": seed,
            "objects": count,
            "accepted": accepted,
            "images": used,
            "n": len(ious),
            "P@0.5": float((ious >= 0.5).mean()),
            "mIoU": float(ious.mean()),
            "answered": float((ious > 0).mean()),
            "found": float(np.mean(boxes)),
            "learn_seconds": seconds,
        }


def _lessons(
    matcher: CompactMatcher, shown: Sequence[LabelledImage], category: str, count: int
) -> tuple[list[Lesson], int, int]:
    """Lessons of ``count`` objects; an image is complete where all its objects are among them."""
    lessons: list[Lesson] = []
    accepted = 0
    for image in shown:
        if accepted >= count:
            break
        whole = whole_objects(image, category)
        chosen = whole[: count - accepted]
        complete = len(chosen) == sum(item.category == category for item in image.objects)
        others = [item.box for item in image.objects if item.category != category][:20]
        boxes = [image.objects[index].box for index in chosen]
        lessons.append(matcher.learn(image.pixels(), boxes, others, complete=complete, key=image.key))
        accepted += len(chosen)
    return lessons, accepted, len(lessons)


def _renamed(image: LabelledImage, category: str) -> LabelledImage:
    """The image with the expressions about the category, which is called ``WORD`` in them."""
    other = renamed(image, {category: WORD})
    return replace(other, expressions=tuple(one for one in other.expressions if one.objects and one.label == WORD))


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = ("P@0.5", "mIoU", "answered", "found")
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


if __name__ == "__main__":
    main()
